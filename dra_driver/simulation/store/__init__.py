"""The Kubernetes API in memory: see ``api`` for what it is and ``features`` for the gates it knows."""

from dra_driver.simulation.store.api import EmbeddedApi
from dra_driver.simulation.store.audit import AuditEntry
from dra_driver.simulation.store.features import OFF_BY_DEFAULT

__all__ = ["OFF_BY_DEFAULT", "AuditEntry", "EmbeddedApi"]
