"""Converted claims before the allocator: they get what the old request would have got."""

from __future__ import annotations

from typing import Any

import pytest

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim
from dra_driver.allocator.reasons import Failure
from dra_driver.cli.convert import sizes
from dra_driver.cli.convert.converting import Options
from tests.allocator.builders import device_class, gpu, resource_slice
from tests.cli.convert.cases import converted
from tests.cli.convert.objects import of_kind, pod, template

ENGINE = CelEngine()
MIG = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'mig'"
CLASSES = [
    device_class(),
    device_class("mig.nvidia.com", MIG),
    device_class("fraction.gpu.nvidia.com", "'sharingBackend' in device.attributes['gpu.nvidia.com']"),
]


def shareable(
    index: int, memory: str = "40Gi", product: str = "NVIDIA A100-SXM4-40GB", backend: str = "Mps"
) -> dict[str, Any]:
    """A GPU that is offered in fractions of memory and compute."""
    attributes = {**gpu(index)["attributes"], "productName": {"string": product}, "sharingBackend": {"string": backend}}
    policy = {"default": memory, "validRange": {"min": "256Mi", "step": "256Mi"}}
    compute = {"default": "0", "validRange": {"min": "0", "step": "1"}}
    capacity = {
        "memory": {"value": memory, "requestPolicy": policy},
        "compute": {"value": "100", "requestPolicy": compute},
    }
    return gpu(index, attributes=attributes, capacity=capacity, allowMultipleAllocations=True)


def mig(name: str, profile: str, memory: str) -> dict[str, Any]:
    attributes = {**gpu(0)["attributes"], "type": {"string": "mig"}, "profile": {"string": profile}}
    return gpu(0, name=name, attributes=attributes, capacity={"memory": {"value": memory}})


Given = list[tuple[str, dict[str, str]]]


def allocated(
    text: str, devices: list[dict[str, Any]], options: Options | None = None, copies: int = 1
) -> Given | Failure:
    """Devices and what is consumed of each, for ``copies`` pods of the one template; or why they do not fit."""
    result = converted(text, options)
    assert result.problems == ()
    (template,) = of_kind(result.text, "ResourceClaimTemplate")
    spec = template["spec"]["spec"]
    names = [{"name": f"c{at}", "namespace": "n", "uid": f"u{at}"} for at in range(copies)]
    snapshot = Snapshot.from_objects([resource_slice("n", devices)], CLASSES, [])
    claims = [parse_claim({"metadata": metadata, "spec": spec}) for metadata in names]
    found = Allocator(ENGINE, snapshot).allocate(Node("n"), claims)
    if isinstance(found, Failure):
        return found
    return [
        (each.device.id.device, {name: str(amount) for name, amount in each.consumed.items()})
        for one in found
        for each in one.results
    ]


def names(given: Given | Failure) -> list[str]:
    assert not isinstance(given, Failure)
    return [name for name, _ in given]


def test_an_amount_of_memory_and_compute() -> None:
    text = pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 3000, nvidia.com/gpucores: 30")
    assert allocated(text, [shareable(0)]) == [("gpu-0", {"memory": "3Gi", "compute": "30"})]


def test_a_ceiling_of_several_cards_is_left_out_and_told() -> None:
    text = pod("nvidia.com/gpu: 2, nvidia.com/gpumem: 3000, nvidia.com/gpucores: 30")
    result = converted(text, Options())
    assert result.problems == ()
    assert "30 percent of the compute is left out" in result.text
    assert "compute:" not in result.text


def test_cards_are_different_ones() -> None:
    text = pod("nvidia.com/gpu: 2, nvidia.com/gpumem: 3000")
    assert names(allocated(text, [shareable(0, backend="Cgroup"), shareable(1, backend="Cgroup")])) == [
        "gpu-0",
        "gpu-1",
    ]
    assert isinstance(allocated(text, [shareable(0), shareable(1)]), Failure), "MPS holds a container to one GPU"
    assert isinstance(allocated(text, [shareable(0)]), Failure)


def test_a_plain_card_is_a_whole_one() -> None:
    text = pod("nvidia.com/gpu: 1")
    assert allocated(text, [shareable(0)]) == [("gpu-0", {"memory": "40Gi", "compute": "0"})]
    assert names(allocated(text, [shareable(0), shareable(1)], copies=2)) == ["gpu-0", "gpu-1"]


@pytest.mark.parametrize("amounts", ["nvidia.com/gpumem: 0", "nvidia.com/gpumem-percentage: 100"])
def test_without_a_number_it_is_one_card(amounts: str) -> None:
    assert allocated(pod(amounts), [shareable(0)]) == [("gpu-0", {"memory": "40Gi", "compute": "0"})]


def test_compute_alone_takes_all_the_memory() -> None:
    text = pod("nvidia.com/gpu: 1, nvidia.com/gpucores: 50")
    assert allocated(text, [shareable(0)]) == [("gpu-0", {"memory": "40Gi", "compute": "50"})]


@pytest.mark.parametrize(("percent", "most"), [(50, 2), (33, 3), (25, 4), (10, 10)])
@pytest.mark.parametrize("memory", ["40Gi", "40192Mi", "81152Mi"])
def test_as_many_parts_fit_as_before(percent: int, most: int, memory: str) -> None:
    options = Options(sizes.parse((memory,), ()))
    text = pod(f"nvidia.com/gpu: 1, nvidia.com/gpumem-percentage: {percent}")
    devices = [shareable(0, memory)]
    assert names(allocated(text, devices, options, copies=most)) == ["gpu-0"] * most
    assert isinstance(allocated(text, devices, options, copies=most + 1), Failure)


@pytest.mark.parametrize(
    "options",
    [Options(sizes.parse(("79Gi,39Gi",), ())), Options(sizes.parse((), ("h100=79Gi", "A100=39Gi")))],
    ids=["sizes", "products"],
)
def test_a_part_of_each_kind_of_gpu(options: Options) -> None:
    text = pod("nvidia.com/gpu: 1, nvidia.com/gpumem-percentage: 50")
    large, small = shareable(0, "79Gi", "NVIDIA H100 80GB HBM3"), shareable(0, "39Gi")
    assert allocated(text, [small], options) == [("gpu-0", {"memory": "19968Mi", "compute": "0"})]
    assert allocated(text, [large], options) == [("gpu-0", {"memory": "40448Mi", "compute": "0"})]


WHERE = [
    ('nvidia.com/use-gputype: "A100,V100"', "gpu-1"),
    ('nvidia.com/use-gputype: " h100 "', "gpu-0"),
    ('nvidia.com/use-gputype: "NVIDIA-NVIDIA A100"', "gpu-1"),
    ("nvidia.com/nouse-gputype: H100", "gpu-1"),
    ("nvidia.com/use-gpuuuid: GPU-00000000-0000-0000-0000-000000000001", "gpu-1"),
    ("nvidia.com/nouse-gpuuuid: GPU-00000000-0000-0000-0000-000000000000", "gpu-1"),
    ("volcano.sh/vgpu-use-gpuuuid: GPU-00000000-0000-0000-0000-000000000001", "gpu-1"),
    ('nvidia.com/use-gputype: ""', "gpu-0"),
]


@pytest.mark.parametrize("amounts", ["nvidia.com/gpu: 1", "nvidia.com/gpu: 1, nvidia.com/gpumem: 1024"])
@pytest.mark.parametrize(("annotations", "wanted"), WHERE)
def test_types_and_uuids_choose(annotations: str, wanted: str, amounts: str) -> None:
    devices = [shareable(0, "79Gi", "NVIDIA H100 80GB HBM3"), shareable(1)]
    for at, device in enumerate(devices):
        device["attributes"]["uuid"] = {"string": f"GPU-00000000-0000-0000-0000-00000000000{at}"}
    assert names(allocated(pod(amounts, annotations=annotations), devices)) == [wanted]


def test_a_device_without_the_attribute_stops_nobody() -> None:
    bare = shareable(0)
    del bare["attributes"]["productName"], bare["attributes"]["uuid"]
    annotations = "nvidia.com/nouse-gputype: V100, nvidia.com/nouse-gpuuuid: GPU-00000000-0000-0000-0000-000000000001"
    text = pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 1024", annotations=annotations)
    assert names(allocated(text, [bare, shareable(1)])) == ["gpu-1"]


def test_mig_devices_by_profile() -> None:
    devices = [mig("m0", "1g.10gb", "10Gi"), mig("m1", "1g.10gb+me", "10Gi"), mig("m2", "3g.40gb", "40Gi")]
    assert names(allocated(pod("nvidia.com/mig-1g.10gb.me: 1"), devices)) == ["m1"]
    assert names(allocated(pod("nvidia.com/mig-1g.10gb: 1, nvidia.com/mig-3g.40gb: 1"), devices)) == ["m0", "m2"]


def test_mig_mode_takes_the_first_that_is_large_enough() -> None:
    devices = [mig("m0", "1g.10gb", "10Gi"), mig("m2", "3g.40gb", "40Gi")]
    annotations = "nvidia.com/vgpu-mode: mig"
    assert names(allocated(pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 8000", annotations=annotations), devices)) == [
        "m0"
    ]
    assert names(allocated(pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 18000", annotations=annotations), devices)) == [
        "m2"
    ]


@pytest.mark.parametrize(
    ("annotations", "consumed"),
    [
        ('gpu-fraction: "0.5"', {"memory": "20Gi", "compute": "50"}),
        ('gpu-memory: "2000"', {"memory": "2Gi", "compute": "0"}),
        ("nvidia.com/container.main.gpu-memory.limit: 4Gi", {"memory": "4Gi", "compute": "0"}),
    ],
)
def test_fractions_of_kai(annotations: str, consumed: dict[str, str]) -> None:
    options = Options(sizes.parse(("40Gi",), ()))
    assert allocated(pod(annotations=annotations), [shareable(0)], options) == [("gpu-0", consumed)]


def test_what_hami_would_obey_in_the_environment_is_named() -> None:
    text = pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 3000").replace(
        "image: x", "image: x, env: [{name: A, value: b}, {name: CUDA_DISABLE_CONTROL, value: 'true'}]"
    )
    result = converted(text, Options())
    assert result.problems == ()
    assert "# CUDA_DISABLE_CONTROL in the container's env: HAMi obeys that, and here nothing does." in result.text


def test_kais_short_limit_is_the_most_of_the_fraction() -> None:
    text = pod(annotations='gpu-memory: "2000", gpu-memory.limit: 4000Mi')
    (parameters,) = (each["opaque"]["parameters"] for each in template(converted(text, Options()).text)["config"])
    assert parameters["memoryLimit"] == "4000Mi"
    assert "gpu-memory.limit" not in of_kind(converted(text, Options()).text, "Pod")[0]["metadata"].get(
        "annotations", {}
    )


@pytest.mark.parametrize("name", ["gpu-fraction.limit", "kai.scheduler/container.main.gpu-memory.portion.limit"])
def test_kais_limit_as_a_portion_is_named_and_gone(name: str) -> None:
    text = pod(annotations=f'gpu-fraction: "0.25", {name}: "0.5"')
    result = converted(text, Options(sizes=(sizes.Size(40 << 30),)))
    assert result.problems == ()
    assert "is gone: a limit above what is counted is an amount here" in " ".join(result.text.replace("#", "").split())
    assert name not in (of_kind(result.text, "Pod")[0]["metadata"].get("annotations") or {})
