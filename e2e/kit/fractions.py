"""A cluster whose driver offers GPUs in fractions, and what tests look at there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from api.fractions import API_VERSION, SharingBackend
from dra_driver.kube.interface import RESOURCE_CLAIMS, Obj
from dra_driver.quantity import Quantity
from e2e.kit.mps_clients import Counting, client_pod, try_allocating
from e2e.kit.pools import driver_slices, gpus
from e2e.kit.space import Space
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import GPU_CLASS, Use, claim_spec, exactly, only_uuid

FRACTION_CLASS: Final = "fraction.gpu.nvidia.com"
VALUES: Final = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "values" / "fractions.yaml"

_SECONDS = 60.0


@contextmanager
def offering_fractions(stage: Stage, settings: Sequence[str], backend: SharingBackend) -> Iterator[None]:
    """With the values of the example, once ``backend`` fences them; the driver is as it was afterwards."""
    stage.driver.install(settings, [VALUES])
    try:
        eventually(lambda: check_offered(stage, backend), _SECONDS)
        yield
    finally:
        stage.install_driver()
        eventually(lambda: check_whole(stage), _SECONDS)


def check_offered(stage: Stage, backend: SharingBackend) -> None:
    """All whole GPUs are offered in fractions which ``backend`` fences."""
    for device in _gpus(stage):
        found = device["attributes"].get("sharingBackend", {}).get("string")
        if not device.get("allowMultipleAllocations") or found != backend:
            raise NotYet(f"{device['name']} is not offered in fractions, or not fenced by {backend} but by {found}")


def check_whole(stage: Stage) -> None:
    for device in _gpus(stage):
        if device.get("allowMultipleAllocations"):
            raise NotYet(f"{device['name']} is still offered in fractions")


def usable(stage: Stage) -> Mapping[str, int]:
    """Bytes that are offered of each whole GPU of the first node, by name."""

    return {device["name"]: Quantity.parse(device["capacity"]["memory"]["value"]).value() for device in _gpus(stage)}


def _gpus(stage: Stage) -> list[Obj]:
    devices = (device for each in driver_slices(stage.api) for device in each["spec"].get("devices") or ())
    return [device for device in devices if device["attributes"]["type"]["string"] == "gpu"]


def check_held(stage: Stage, space: Space) -> Obj:
    """Two pods on one GPU: each counts on, may allocate what it has, and is refused what it has not. What ``status``
    tells of the smaller share."""
    node = stage.nodes[0]
    uuid = gpus(stage.api, node)[0].uuid
    for name, memory, compute in (("small", "4Gi", "25"), ("large", "8Gi", "50")):
        space.claim(name, fraction(memory, compute, selectors=[only_uuid(uuid)]))
        space.pod(client_pod(name, Use(claim=name), node=node))
    counting = [Counting.begin(space, name) for name in ("small", "large")]
    assert try_allocating(space, "small", "3G") == ""
    assert "CUDA_ERROR_OUT_OF_MEMORY" in try_allocating(space, "small", "5G")
    assert try_allocating(space, "large", "5G") == ""
    assert "CUDA_ERROR_OUT_OF_MEMORY" in try_allocating(space, "large", "9G")
    for each in counting:
        each.check_goes_on()
    told = wait_told(space, "small")
    assert (told["data"]["memoryBytes"], told["data"]["computePercent"]) == (4 * 2**30, 25)
    assert told["shareID"] != wait_told(space, "large")["shareID"]
    return told


def fraction(
    memory: str = "",
    compute: str = "",
    *,
    name: str = "gpu",
    count: int | None = None,
    selectors: Sequence[str] = (),
    config: Obj | None = None,
) -> Obj:
    """The spec of a claim for one request."""
    request = exactly(name, device_class=FRACTION_CLASS, count=count, selectors=selectors)
    wanted = {key: value for key, value in (("memory", memory), ("compute", compute)) if value}
    if wanted:
        request["exactly"]["capacity"] = {"requests": wanted}
    return claim_spec(request, config=[] if config is None else [_opaque(config)])


def _opaque(fields: Obj) -> Obj:
    parameters = {"apiVersion": API_VERSION, "kind": "FractionConfig", **fields}
    return {"opaque": {"driver": GPU_CLASS, "parameters": parameters}}


def wait_told(space: Space, claim: str, status: str = "True") -> Obj:
    """The entry of the claim's one share in ``status.devices``, once its condition has that status."""

    def look() -> Obj:
        found = space.api.get(RESOURCE_CLAIMS, claim, space.namespace)
        devices: list[Obj] = (found.get("status") or {}).get("devices") or []
        for device in devices:
            for condition in device.get("conditions") or ():
                if condition["type"] == "Enforced" and condition["status"] == status:
                    return device
        raise NotYet(f"status.devices of claim {claim} is {devices}")

    return eventually(look, _SECONDS)
