"""A node's state as NVIDIA's driver leaves it: recorded files of its own, with a test's claims in them."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dra_driver.cdi.names import CdiNames
from dra_driver.devices.naming import MigName, parse_name
from e2e.clusters.interface import Cluster
from e2e.kit.expected import DRIVER
from e2e.kit.node_files import CDI_FOLDER
from kubelet_plugin.claims.entry import ClaimEntry
from kubelet_plugin.prepare.checkpoint import STATE_FOLDER
from kubelet_plugin.takeover.nvidia_checkpoint import NvidiaCheckpoint, checksum, decode

FOLDER = f"/var/lib/kubelet/plugins/{DRIVER}"
NVIDIA_CHECKPOINT = f"{FOLDER}/checkpoint.json"
_DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
_RECORDED_CDI = _DATA / "nvidia-cdi" / "h100-full.yaml"
_RECORDED_DEVICE = "bbf84a7a-cf47-48e6-b59c-6a412dede17e-gpu-1"

Json = dict[str, Any]


def lay_down(cluster: Cluster, node: str, entries: Iterable[ClaimEntry], instances: Mapping[str, Json]) -> None:
    """In place of our state: NVIDIA's for the same claims. ``instances``: NVIDIA's words for those of MIG devices."""
    claims = list(entries)
    content = checkpoint_of(claims, instances)
    cluster.run_on_node(node, ["rm", "-r", f"{FOLDER}/{STATE_FOLDER}"])
    _write(cluster, node, NVIDIA_CHECKPOINT, content)
    for entry in claims:
        uid = entry.ref.uid
        for device in entry.prepared:
            text = _RECORDED_CDI.read_text().replace(_RECORDED_DEVICE, f"{uid}-{device.device_name}")
            _write(cluster, node, f"{CDI_FOLDER}/{CdiNames().file_name(uid)}", text)


def read_nvidia(cluster: Cluster, node: str) -> NvidiaCheckpoint:
    """Raises ClusterError when there is none, UnknownCheckpoint when it does not verify."""
    return decode(cluster.run_on_node(node, ["cat", NVIDIA_CHECKPOINT]).encode(), DRIVER)


def checkpoint_of(entries: Iterable[ClaimEntry], instances: Mapping[str, Json]) -> str:
    """The recorded file with other claims in it."""
    found = list(entries)
    claims = {entry.ref.uid: _claim(entry, instances) for entry in sorted(found, key=lambda entry: entry.ref.uid)}
    finished = {uid: {key: claim[key] for key in ("status", "preparedDevices")} for uid, claim in claims.items()}
    v1 = {"preparedClaims": finished}
    v2 = {"preparedClaims": claims, "nodeBootID": found[0].boot_id}
    sums = checksum(_compact({"checksum": 0, "v1": v1})), checksum(_compact({"checksum": 0, **v2}))
    return _compact({"checksum": sums[0], "v1": v1, "v2": {"checksum": sums[1], **v2}})


def _claim(entry: ClaimEntry, instances: Mapping[str, Json]) -> Json:
    (held,) = entry.devices
    name = held.prepared.device_name
    is_mig = isinstance(parse_name(name), MigName)
    recorded = _DATA / "nvidia-state" / f"checkpoint-one-{'dynamic-mig' if is_mig else 'gpu'}.json"
    (template,) = json.loads(recorded.read_text())["v2"]["preparedClaims"].values()
    claim: Json = copy.deepcopy(template)
    (result,) = claim["status"]["allocation"]["devices"]["results"]
    result |= {"request": held.prepared.request_names[0], "pool": held.prepared.pool_name, "device": name}
    device = claim["preparedDevices"][0]["devices"][0]["mig" if is_mig else "gpu"]
    device["device"] |= {
        "Requests": list(held.prepared.request_names),
        "PoolName": held.prepared.pool_name,
        "DeviceName": name,
        "CDIDeviceIDs": list(held.prepared.cdi_device_ids),
    }
    if is_mig:
        device["concrete"] |= instances[name]
    else:
        device["info"]["uuid"] = held.gpu_uuid
    return claim


def _write(cluster: Cluster, node: str, path: str, content: str) -> None:
    encoded = base64.b64encode(content.encode()).decode()
    cluster.run_on_node(node, ["sh", "-c", f'echo "{encoded}" | base64 -d > "{path}"'])


def _compact(document: Json) -> str:
    return json.dumps(document, separators=(",", ":"))
