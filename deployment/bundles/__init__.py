"""Bundles: what measures a device that cannot run kneepoint, and what its results say here."""

from kneepoint.deployment.bundles.importing import Imported, import_results
from kneepoint.deployment.bundles.plan import Plan
from kneepoint.deployment.bundles.writing import Bundle, write_bundle

__all__ = ["Bundle", "Imported", "Plan", "import_results", "write_bundle"]
