"""What sharing asks of a demo: an MPS supervisor on each node, and pods that come when GPUs are offered in shares.

A pod that comes before gets a whole GPU, which then stays whole until it has gone; people are slower than that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from api.claim_config import SharingStrategy
from api.sharing_policy import DevicePluginConfigSettings
from dra_driver.cli.manifests import Manifest
from dra_driver.kube.interface import CONFIG_MAPS, RESOURCE_SLICES, KubeApi
from dra_driver.kube.lists import list_all

_STRATEGY = json.dumps({"strategy": SharingStrategy.MPS}).strip("{}")
_SECONDS = 10.0  # a broken configuration changes nothing, and then the pods come all the same
_POLL_SECONDS = 0.05


def is_about_shares(manifest: Manifest) -> bool:
    """Whether it is the ConfigMap that the controller reads unless it is told otherwise."""
    read = DevicePluginConfigSettings()
    return manifest.resource == CONFIG_MAPS and (manifest.namespace, manifest.name) == (read.namespace, read.name)


def asks_for_mps(manifests: Sequence[Manifest]) -> bool:
    """Whether a node needs an MPS supervisor, as far as one can see."""
    return any(_STRATEGY in json.dumps(manifest.object) for manifest in manifests) or any(
        "mps:" in str(text)
        for manifest in manifests
        if is_about_shares(manifest)
        for text in (manifest.object.get("data") or {}).values()
    )


def wait_for_shares(api: KubeApi) -> None:
    """Until each pool has a device that is offered in shares, or for a while."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        slices = list_all(api, RESOURCE_SLICES)
        pools = {each["spec"]["pool"]["name"] for each in slices}
        shared = {
            each["spec"]["pool"]["name"]
            for each in slices
            for device in each["spec"].get("devices") or ()
            if device.get("allowMultipleAllocations")
        }
        if shared == pools:
            return
        time.sleep(_POLL_SECONDS)
