"""Choosing, running and recording trials."""
