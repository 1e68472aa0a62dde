"""Published networks as operator tables, written from their papers, to compare predictions with published latencies."""
