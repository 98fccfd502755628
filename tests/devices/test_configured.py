"""DriverConfiguration becomes the policy that controller and plugin act by."""

from __future__ import annotations

import pytest

from api.driver_config import decode
from api.mig_policy import MigMode
from dra_driver.devices.configured import device_policy
from dra_driver.devices.policy import GpuMigPolicy
from dra_driver.hardware.model import Gpu, MigState
from tests.devices.builders import gpu


def ampere(*, enabled: bool) -> Gpu:
    state = MigState(enabled=enabled, pending=enabled)
    return gpu(1, architecture="Ampere", cuda_compute_capability="8.0", product_name="NVIDIA A30", mig=state)


HOPPER, HOPPER_ON = gpu(0), gpu(0, mig=MigState(enabled=True, pending=True))
NO_MIG = gpu(2, mig=None)


def mode(spec: dict[str, object], of: Gpu) -> MigMode:
    return device_policy(decode({"spec": spec}).spec).mig.for_gpu("node-1", of).mode


@pytest.mark.parametrize("gates", [{}, {"DynamicMIG": True}])
def test_by_default_mig_is_dynamic_where_no_reset_is_needed(gates: dict[str, bool]) -> None:
    spec: dict[str, object] = {"featureGates": gates}
    assert [mode(spec, each) for each in (HOPPER, HOPPER_ON)] == [MigMode.DYNAMIC] * 2
    assert mode(spec, ampere(enabled=False)) is MigMode.OFF
    assert mode(spec, ampere(enabled=True)) is MigMode.STATIC
    assert mode(spec, NO_MIG) is MigMode.OFF


def test_with_the_gate_off_nothing_is_dynamic_unless_a_rule_says_so() -> None:
    gate: dict[str, object] = {"featureGates": {"DynamicMIG": False}}
    assert mode(gate, HOPPER) is MigMode.OFF
    assert mode(gate, HOPPER_ON) is MigMode.STATIC
    assert mode({**gate, "mig": {"rules": [{"mode": "dynamic"}]}}, HOPPER) is MigMode.DYNAMIC


def test_the_first_rule_that_selects_a_gpu_decides_about_all_of_it() -> None:
    spec = {
        "driverName": "gpu.example.com",
        "policy": {"additionalAttributes": True},
        "mig": {
            "rules": [
                {"selector": {"nodes": ["node-2"]}, "mode": "off"},
                {"selector": {"products": ["NVIDIA H100*"], "minors": [0]}, "mode": "static", "layout": "half"},
                {"selector": {"architectures": ["Ampere"]}, "adoptForeign": True, "keepMode": True},
                {"mode": "dynamic", "partialComputeInstances": True},
            ],
            "layouts": {"version": "v1", "mig-configs": {"half": [{"devices": "all", "mig-enabled": False}]}},
        },
    }
    policy = device_policy(decode({"spec": spec}).spec)
    assert (policy.additional_attributes, policy.driver) == (True, "gpu.example.com")
    assert policy.taint_key("x") == "gpu.example.com/x"
    assert policy.mig.for_gpu("node-1", HOPPER) == GpuMigPolicy(MigMode.STATIC, layout="half")
    assert policy.mig.for_gpu("node-2", HOPPER) == GpuMigPolicy(MigMode.OFF)
    expected = GpuMigPolicy(MigMode.STATIC, adopt_foreign=True, keep_mode=True)
    assert policy.mig.for_gpu("node-1", ampere(enabled=True)) == expected
    last = policy.mig.for_gpu("node-1", gpu(5))
    assert last == GpuMigPolicy(MigMode.DYNAMIC, partial_compute_instances=True)
