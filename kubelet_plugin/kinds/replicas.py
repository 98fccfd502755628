"""Shares of devices as such: how many of them a request may have.

Holders of time-sliced shares use the GPU as the driver slices it by default: the device plugin sets nothing for its
replicas either. So nothing is wrapped here, and one thing is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.claim_config import ClaimConfig
from dra_driver.devices.mig_devices import profile_on
from dra_driver.devices.naming import MigName, read_name
from dra_driver.devices.plugin_sharing import resource_name
from dra_driver.devices.sharing import Replicas
from dra_driver.errors import ClaimError
from dra_driver.hardware.model import Machine
from kubelet_plugin.claims.node_policy import NodePolicy
from kubelet_plugin.kinds.sharing import SharingInForce, sharing_of_name
from kubelet_plugin.prepare.kind import ClaimDevice, Others, Refusal, Wrapper


class TooManyShares(ClaimError):
    """A request has more shares than one request may have."""

    reason = "TooManyShares"
    retryable = False


class OneShareToARequest(Wrapper):
    """failRequestsGreaterThanOne of the device plugin, which fails such a pod when it allocates for a container; here
    a container's extended resource, or a claim's request, is one request."""

    name = "replicas"

    def __init__(self, sharing: SharingInForce, policy: NodePolicy) -> None:
        self._sharing = sharing
        self._policy = policy

    def wraps(self, device: ClaimDevice) -> bool:
        return False

    def honours(self, config: ClaimConfig) -> bool:
        return False

    def refuses(self, device: ClaimDevice, beside: Sequence[ClaimDevice], others: Others) -> Refusal | None:
        """Raises TooManyShares."""
        allocated = device.allocated
        if not allocated.is_share or not any(_same_request(device, other) for other in beside):
            return None
        resource, replicas = self._offered(device, others.machine)
        if replicas is None or not replicas.one_per_request:
            return None
        theirs = [
            other
            for other in beside
            if _same_request(device, other) and self._offered(other, others.machine)[0] == resource
        ]
        if not theirs:
            return None
        names = ", ".join(sorted(each.allocated.device for each in (device, *theirs)))
        raise TooManyShares(
            f"request {allocated.parent_request} of claim {device.claim} has {len(theirs) + 1} shares of {resource} "
            f"({names}), and this node's configuration of sharing allows one share to a request "
            "(failRequestsGreaterThanOne)",
            hint=f"ask for one {resource} in each request, or for devices that are not shared; or have your "
            "administrator set failRequestsGreaterThanOne: false in the configuration of sharing",
        )

    def _offered(self, device: ClaimDevice, machine: Machine) -> tuple[str, Replicas | None]:
        """As which resource, and how. A share of a device that is not shared any more is of no resource."""
        gpu, name = machine.with_uuid(device.place.gpu_uuid), read_name(device.allocated.device)
        if gpu is None:
            return "", None
        policy = self._sharing.current()
        profile = profile_on(gpu, name) if isinstance(name, MigName) else None
        sharing = sharing_of_name(name, gpu, policy, self._policy.node)
        return resource_name(profile), sharing if isinstance(sharing, Replicas) else None


def _same_request(device: ClaimDevice, other: ClaimDevice) -> bool:
    mine, theirs = device.allocated, other.allocated
    return theirs.is_share and not theirs.admin_access and theirs.parent_request == mine.parent_request
