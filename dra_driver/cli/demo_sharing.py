"""Manifests that have GPUs offered in shares: the demo's pods come when they are, as with people, who are slower.

A pod that comes before gets a whole GPU, which then stays whole until it has gone.
"""

from __future__ import annotations

import time

from api.sharing_policy import DevicePluginConfigSettings
from dra_driver.cli.manifests import Manifest
from dra_driver.kube.interface import CONFIG_MAPS, RESOURCE_SLICES, KubeApi
from dra_driver.kube.lists import list_all

_SECONDS = 10.0  # a broken configuration changes nothing, and then the pods come all the same
_POLL_SECONDS = 0.05


def is_about_shares(manifest: Manifest) -> bool:
    """Whether it is the ConfigMap that the controller reads unless it is told otherwise."""
    read = DevicePluginConfigSettings()
    return manifest.resource == CONFIG_MAPS and (manifest.namespace, manifest.name) == (read.namespace, read.name)


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
