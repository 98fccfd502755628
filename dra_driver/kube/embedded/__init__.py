"""The Kubernetes API in memory: see ``api`` for what it is and ``features`` for the gates it knows."""

from dra_driver.kube.embedded.api import EmbeddedApi
from dra_driver.kube.embedded.audit import AuditEntry
from dra_driver.kube.embedded.features import OFF_BY_DEFAULT

__all__ = ["OFF_BY_DEFAULT", "AuditEntry", "EmbeddedApi"]
