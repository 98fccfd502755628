"""A fake kubelet: real registration and DRA protocols, real claims and CDI files, pretended containers.

:class:`FakeKubelet` is put together from small parts: ``plugins`` (registration, connections), ``wiper`` (slices),
``manager`` with ``claims`` and ``claim_cache`` (prepare and unprepare), ``pods`` (one pod's life), ``status``.
"""

from dra_driver.simulation.kubelet.kubelet import FakeKubelet
from dra_driver.simulation.kubelet.manager import Call
from dra_driver.simulation.kubelet.options import KubeletOptions

__all__ = ["Call", "FakeKubelet", "KubeletOptions"]
