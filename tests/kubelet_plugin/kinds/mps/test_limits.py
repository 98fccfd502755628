"""Settings that cannot be had: refused with path, value, allowed range and remedy, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from dra_driver.devices.policy import MigPolicy
from dra_driver.errors import ConfigError
from kubelet_plugin.prepare.engine import PrepareEngine
from tests.kubelet_plugin.kinds.mps.claims import LIMITS, mig_mps, mps, mps_for
from tests.kubelet_plugin.prepare.calls import prepare
from tests.kubelet_plugin.prepare.node import claim, result
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode

MIG, LARGER_MIG = "gpu-1-mig-1g10gb-19-0", "gpu-1-mig-3g40gb-9-4"
LIMIT = "defaultPinnedDeviceMemoryLimit"
ABSENT = "GPU-00000000-0000-0000-0000-000000000000"


def refusal(node: SimulatedNode, engine: PrepareEngine, *devices: str, **settings: object) -> str:
    asked = mps_for(devices[0], **settings)
    node.claims.add(claim("u1", *(result(name, f"r{n}") for n, name in enumerate(devices)), configs=[asked]))
    with pytest.raises(ConfigError) as caught:
        prepare(engine, "u1")
    assert not caught.value.retryable
    assert (node.supervisor.calls, node.everything(), engine.entries()) == ([], {}, {})
    return str(caught.value)


WRONG: list[tuple[tuple[str, ...], Mapping[str, object], str, str]] = [
    (
        ("gpu-0",),
        {"defaultActiveThreadPercentage": 0},
        "defaultActiveThreadPercentage: must be 1 to 100, not 0",
        "leave it out",
    ),
    (
        ("gpu-0",),
        {"defaultActiveThreadPercentage": 101},
        "defaultActiveThreadPercentage: must be 1 to 100, not 101",
        "correct it",
    ),
    (("gpu-0",), {LIMIT: "1023Ki"}, f"{LIMIT}: must be at least 1Mi", "correct it in the claim"),
    (("gpu-0",), {LIMIT: "100Gi"}, f"{LIMIT}: 102400Mi is not", "has 81559Mi: ask for 1Mi to 81559Mi"),
    (("gpu-0",), {LIMITS: {"1": "1Gi"}}, f'{LIMITS}["1"]: the key is', 'there is one (use "0", or GPU-'),
    (
        ("gpu-0", "gpu-1"),
        {LIMITS: {"2": "1Gi"}},
        f'{LIMITS}["2"]: the key is neither the index nor the UUID of a device',
        'there are 2 (use "0" to "1", or GPU-',
    ),
    (("gpu-0",), {LIMITS: {ABSENT: "1Gi"}}, f'{LIMITS}["{ABSENT}"]: the key is', 'use "0", or GPU-'),
    (("gpu-0",), {LIMITS: {"0": "80Gi"}}, f'{LIMITS}["0"]: 81920Mi is not', "ask for 1Mi to 81559Mi"),
    (("gpu-0",), {LIMITS: {"0": 5}}, f'{LIMITS}["0"]: must be at least 1Mi', "correct it in the claim"),
    ((MIG,), {LIMIT: "10Gi"}, f"{LIMIT}: 10240Mi is not", f"{MIG} has 9984Mi: ask for 1Mi to 9984Mi"),
    ((MIG,), {LIMITS: {"0": "10Gi"}}, f'{LIMITS}["0"]: 10240Mi is not', "ask for 1Mi to 9984Mi"),
    ((MIG, LARGER_MIG), {LIMITS: {"1": "20Gi"}}, f'{LIMITS}["1"]: 20480Mi is not', f"{MIG} has 9984Mi"),
    ((MIG,), {LIMITS: {ABSENT: "1Gi"}}, f'{LIMITS}["{ABSENT}"]: the key is', "the claim makes its MIG devices"),
]


@pytest.mark.parametrize(("devices", "settings", "where", "remedy"), WRONG)
def test_what_cannot_be_had(
    devices: tuple[str, ...],
    settings: Mapping[str, object],
    where: str,
    remedy: str,
    node: SimulatedNode,
    engine: PrepareEngine,
) -> None:
    said = refusal(node, engine, *devices, **settings)
    assert f"configuration of claim default/u1: config[0].opaque.parameters.sharing.mpsConfig.{where}" in said
    assert remedy in said


def test_two_limits_for_one_device(node: SimulatedNode, engine: PrepareEngine) -> None:
    uuid = node.machine.gpus[0].uuid
    said = refusal(node, engine, "gpu-0", **{LIMITS: {"0": "1Gi", uuid: "2Gi"}})
    assert f'{LIMITS}["{uuid}"]: 2048Mi is not available' in said
    assert f'the same device as "0", gpu-0 ({uuid}): give it one limit' in said


def test_a_limit_for_all_need_not_fit_those_with_their_own(node: SimulatedNode, engine: PrepareEngine) -> None:
    one, other = sorted(gpu.uuid for gpu in node.machine.gpus[:2])
    smaller = [replace(gpu, memory_bytes=1 << 30) if gpu.uuid == one else gpu for gpu in node.machine.gpus]
    node.machine = replace(node.machine, gpus=tuple(smaller))
    said = refusal(node, engine, "gpu-0", "gpu-1", **{LIMIT: "2Gi"})
    assert "has 1024Mi: ask for 1Mi to 1024Mi" in said
    asked = mps(**{LIMIT: "2Gi", LIMITS: {"0": "512Mi"}})
    node.claims.add(claim("u1", result("gpu-0", "a"), result("gpu-1", "b"), configs=[asked]))
    prepare(engine, "u1")
    assert node.supervisor.now()[0].group.pinned_memory_mib == {one: 512, other: 2048}


def test_several_users_on_old_hardware(node: SimulatedNode, engine: PrepareEngine) -> None:
    old = replace(node.machine.gpus[0], cuda_compute_capability="6.1", product_name="Tesla P40")
    node.machine = replace(node.machine, gpus=(old, *node.machine.gpus[1:]))
    said = refusal(node, engine, "gpu-0", multiUser=True)
    assert "sharing.mpsConfig.multiUser: true is not available on this node" in said
    assert "is a Tesla P40 of compute capability 6.1, and clients of several users at once need 7.0" in said


def test_memory_that_nvml_does_not_tell_is_not_checked(node: SimulatedNode, engine: PrepareEngine) -> None:
    unified = tuple(replace(gpu, memory_bytes=None) for gpu in node.machine.gpus)
    node.machine = replace(node.machine, gpus=unified)
    node.claims.add(claim("u1", result("gpu-0"), configs=[mps(**{LIMIT: "1Ti"})]))
    prepare(engine, "u1")


def test_mig_devices_that_are_there_are_known_by_uuid(node: SimulatedNode, engines: list[PrepareEngine]) -> None:
    node.policy = MigPolicy(dynamic_by_default=False)
    gpu = node.machine.gpus[1]
    node.by_hand(gpu.uuid, 19, 0)
    node.by_hand(gpu.uuid, 9, 4)
    node.machine = node.hardware.read_machine()
    small, large = (each.compute_instances[0].uuid for each in node.machine.gpus[1].mig.instances)  # type: ignore[union-attr]
    engines.append(node.engine())
    for key in (small, str(sorted((small, large)).index(small))):
        asked = mig_mps(**{LIMITS: {key: "20Gi"}})
        node.claims.add(claim("u1", result(MIG, "a"), result(LARGER_MIG, "b"), configs=[asked]))
        with pytest.raises(ConfigError, match=f"{MIG} \\({small}\\) has 9984Mi"):
            prepare(engines[0], "u1")
    asked = mig_mps(**{LIMITS: {large: "20Gi"}})
    node.claims.add(claim("u1", result(MIG, "a"), result(LARGER_MIG, "b"), configs=[asked]))
    prepare(engines[0], "u1")
    (status,) = node.supervisor.now()
    assert status.group.devices == tuple(sorted((small, large)))
    assert status.group.pinned_memory_mib == {large: 20480}
