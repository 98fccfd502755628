"""A cluster whose driver offers GPUs in fractions, and what tests look at there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from api.fractions import API_VERSION, SharingBackend
from dra_driver.kube.interface import RESOURCE_CLAIMS, Obj
from dra_driver.quantity import Quantity
from e2e.kit.expected import results_of
from e2e.kit.mps_clients import Counting, client_pod, try_allocating
from e2e.kit.pools import driver_slices, gpus, versions
from e2e.kit.space import Space, names
from e2e.kit.stage import Stage
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import GPU_CLASS, Container, Use, claim_spec, exactly, only_uuid, pod

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


def check_a_hundred(stage: Stage, space: Space) -> None:
    """A hundred shares of the node's GPUs come and go, nothing of them is left, and no slice is written meanwhile.

    In ten pods, since a node takes no more than a hundred and ten: each container has a claim of its own. One pod after
    the other: a hundred containers that start at once leave daemons so little of a small machine that they seem to
    hang.
    """
    node = stage.nodes[0]
    before, found = versions(driver_slices(stage.api)), gpus(stage.api, node)
    for number, gpu in enumerate(found):
        space.template(f"on-{number}", fraction("256Mi", "1", selectors=[only_uuid(gpu.uuid)]))
    wanted = names("shares", 10)
    for first, name in enumerate(wanted):
        uses = [Use(template=f"on-{(10 * first + n) % len(found)}", entry=f"share-{n}") for n in range(10)]
        containers = [Container(name=f"c{n}", claims=(use.entry,)) for n, use in enumerate(uses)]
        space.pod(pod(name, *uses, containers=containers, node=node))
        space.wait_ready(name)
    held = Counter(result.device for claim in space.claims().values() for result in results_of(claim))
    assert held.keys() == {gpu.name for gpu in found}
    assert held.total() == 100
    for number in (0, 9):
        limit = space.look(wanted[0], f"c{number}").environment["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"]
        assert limit == f"{found[number % len(found)].uuid}=256M"
    for name in wanted:
        space.delete_pods(name)
    eventually(lambda: _check_no_claims(space), _SECONDS)
    stage.wait_clean()
    assert not space.failed_prepares()
    assert versions(driver_slices(stage.api)) == before


def _check_no_claims(space: Space) -> None:
    """The garbage collector takes them after their pods, some at a time."""
    if left := space.claims():
        raise NotYet(f"{len(left)} claims are left of pods that have gone")


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
