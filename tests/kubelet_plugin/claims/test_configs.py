"""Which configuration wins, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from api.claim_config import (
    ClaimConfig,
    GpuConfig,
    MigDeviceConfig,
    TimeSliceInterval,
    VfioDeviceConfig,
)
from api.feature_gates import FEATURE_GATES
from dra_driver.devices.model import DeviceKind
from dra_driver.errors import ConfigError, UnsupportedConfig
from kubelet_plugin.claims.allocated import check_claim
from kubelet_plugin.claims.configs import DeviceConfig, TakenConfig, resolve_configs
from tests.kubelet_plugin.prepare.node import DRIVER, NODE, claim, config, opaque, ref, result


def slices(interval: str) -> Any:
    return config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}})


SHORT, MEDIUM, LONG = slices("Short"), slices("Medium"), slices("Long")
MIG, VFIO = config(kind="MigDeviceConfig"), config(kind="VfioDeviceConfig")
GPU = DeviceKind.GPU
TAKEN = {
    kind: TakenConfig(kind, config.normalize())
    for kind, config in (
        (GPU, GpuConfig()),
        (DeviceKind.MIG, MigDeviceConfig()),
        (DeviceKind.VFIO, VfioDeviceConfig()),
    )
}


# One that this version does not have is named by itself; what is tested here is which configuration wins.
GATES = frozenset(FEATURE_GATES)


def resolve(configs: list[Any], request: str = "gpu", kind: DeviceKind = GPU) -> DeviceConfig:
    stored = claim("u1", result("gpu-0", request), configs=configs)
    (found,) = resolve_configs(check_claim(stored, ref("u1"), DRIVER, NODE), [TAKEN[kind]], GATES)
    return found


@dataclass(frozen=True)
class Case:
    name: str
    configs: list[Any]
    origin: str
    interval: TimeSliceInterval | None = None
    request: str = "gpu"
    kind: DeviceKind = GPU


CASES = [
    Case("built-in default", [], ""),
    Case("class, naming nothing", [opaque(SHORT, source="FromClass")], "FromClass config[0]", TimeSliceInterval.SHORT),
    Case(
        "an empty list of requests is all",
        [{**opaque(SHORT), "requests": []}],
        "FromClaim config[0]",
        TimeSliceInterval.SHORT,
    ),
    Case(
        "claim before class, whatever the order",
        [opaque(LONG), opaque(SHORT, source="FromClass")],
        "FromClaim config[0]",
        TimeSliceInterval.LONG,
    ),
    Case(
        "a claim's config for all before a class's for the request",
        [opaque(SHORT, ["gpu"], source="FromClass"), opaque(LONG)],
        "FromClaim config[1]",
        TimeSliceInterval.LONG,
    ),
    Case("later before earlier", [opaque(SHORT), opaque(LONG)], "FromClaim config[1]", TimeSliceInterval.LONG),
    Case(
        "later class before earlier class",
        [opaque(SHORT, source="FromClass"), opaque(LONG, source="FromClass")],
        "FromClass config[1]",
        TimeSliceInterval.LONG,
    ),
    Case(
        "another request's config is skipped",
        [opaque(SHORT), opaque(LONG, ["other"])],
        "FromClaim config[0]",
        TimeSliceInterval.SHORT,
    ),
    Case("fields are not merged", [opaque(SHORT), opaque(config())], "FromClaim config[1]"),
    Case(
        "a parent's name covers its subrequests",
        [opaque(SHORT), opaque(LONG, ["gpu"])],
        "FromClaim config[1]",
        TimeSliceInterval.LONG,
        request="gpu/large",
    ),
    Case(
        "a subrequest by its own name",
        [opaque(SHORT, ["gpu/small"]), opaque(LONG, ["gpu/large"])],
        "FromClaim config[0]",
        TimeSliceInterval.SHORT,
        request="gpu/small",
    ),
    Case(
        "a subrequest's config is not its parent's",
        [opaque(SHORT, ["gpu/small"])],
        "",
        request="gpu",
    ),
    Case(
        "for all, of another type: skipped",
        [opaque(SHORT), opaque(MIG), opaque(VFIO)],
        "FromClaim config[0]",
        TimeSliceInterval.SHORT,
    ),
    Case("MIG device", [opaque(SHORT), opaque(MIG)], "FromClaim config[1]", kind=DeviceKind.MIG),
    Case("default of a MIG device", [opaque(SHORT)], "", kind=DeviceKind.MIG),
    Case("VFIO device", [opaque(VFIO)], "FromClaim config[0]", kind=DeviceKind.VFIO),
    Case(
        "a parent's name covers those of its subrequests that it fits",
        [opaque(SHORT, ["gpu"]), opaque(MIG, ["gpu"])],
        "FromClaim config[0]",
        TimeSliceInterval.SHORT,
        request="gpu/whole",
    ),
    Case(
        "and the other subrequests have theirs",
        [opaque(SHORT, ["gpu"]), opaque(MIG, ["gpu"])],
        "FromClaim config[1]",
        request="gpu/slice",
        kind=DeviceKind.MIG,
    ),
    Case(
        "a class names no requests: the scheduler does, and of another type it is skipped",
        [opaque(SHORT, ["gpu"], source="FromClass"), opaque(MIG, ["gpu"], source="FromClass")],
        "FromClass config[0]",
        TimeSliceInterval.SHORT,
    ),
    Case("other drivers' configs", [opaque({"any": 1}, driver="other.example")], ""),
]
KINDS: dict[DeviceKind, type[ClaimConfig]] = {
    DeviceKind.GPU: GpuConfig,
    DeviceKind.MIG: MigDeviceConfig,
    DeviceKind.VFIO: VfioDeviceConfig,
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_precedence(case: Case) -> None:
    found = resolve(case.configs, case.request, case.kind)
    assert found.origin == (f"{case.origin}.opaque.parameters" if case.origin else "")
    assert type(found.config) is KINDS[case.kind]
    if isinstance(found.config, GpuConfig):
        sharing = found.config.sharing
        interval = sharing.time_slicing_config.interval if sharing and sharing.time_slicing_config else None
        assert interval is case.interval


def test_each_device_has_its_own() -> None:
    stored = claim(
        "u1",
        result("gpu-0", "a"),
        result("gpu-1", "b"),
        result("gpu-2", "c"),
        configs=[opaque(SHORT, ["a"]), opaque(LONG, ["b"])],
    )
    found = resolve_configs(check_claim(stored, ref("u1"), DRIVER, NODE), [TAKEN[GPU]] * 3, GATES)
    assert [device.origin[:19] for device in found] == ["FromClaim config[0]", "FromClaim config[1]", ""]


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [(SHORT, DeviceKind.MIG), (SHORT, DeviceKind.VFIO), (MIG, GPU), (VFIO, GPU), (VFIO, DeviceKind.MIG)],
)
@pytest.mark.parametrize("request_name", ["gpu", "gpu/slice"])
def test_naming_a_request_of_another_type_is_an_error(parameters: Any, kind: DeviceKind, request_name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([opaque(parameters, [request_name])], request_name, kind)
    assert (
        f"config[0].opaque.parameters.kind: {parameters['kind']} cannot be applied to device gpu-0 of type {kind} "
        f"(request {request_name}) (use kind {KINDS[kind].__name__}, or leave request {request_name} out of its requests; "
        "correct it in the claim or its template and create the pod again)"
    ) in str(caught.value)


def test_a_claim_that_is_prepared_is_not_refused_any_more() -> None:
    stored = claim("u1", result("gpu-0"), configs=[opaque(MIG, ["gpu"])])
    (found,) = resolve_configs(check_claim(stored, ref("u1"), DRIVER, NODE), [TAKEN[GPU]], None)
    assert found == DeviceConfig(GpuConfig())


def test_a_better_config_hides_one_that_does_not_fit() -> None:
    assert resolve([opaque(MIG, ["gpu"]), opaque(LONG, ["gpu"])]).origin.startswith("FromClaim config[1]")


def test_configs_that_apply_to_nothing_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"config\[0\]\.opaque\.parameters\.sharing\.bogus"):
        resolve([opaque(config(sharing={"bogus": 1}), ["other"])])


def test_a_class_config_is_the_administrators_to_correct() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([opaque(config(kind="Foo"), source="FromClass")])
    assert "a DeviceClass gave to claim default/u1" in str(caught.value)
    assert "ask your administrator" in str(caught.value)


def test_a_configuration_is_refused_only_where_it_applies() -> None:
    stored = claim("u1", result("gpu-0"), configs=[opaque(LONG), opaque(config(), ["gpu"])])
    (found,) = resolve_configs(check_claim(stored, ref("u1"), DRIVER, NODE), [TAKEN[GPU]], ())
    assert found.config == GpuConfig()


NEED_A_GATE = [
    (LONG, GPU, "sharing.strategy", "TimeSlicingSettings"),
    (config(sharing={"strategy": "MPS"}), GPU, "sharing.strategy", "MPSSupport"),
    (config("MigDeviceConfig", sharing={"strategy": "MPS"}), DeviceKind.MIG, "sharing.strategy", "MPSSupport"),
    (VFIO, DeviceKind.VFIO, "kind", "PassthroughSupport"),
]


@pytest.mark.parametrize(("parameters", "kind", "field", "gate"), NEED_A_GATE)
def test_a_configuration_needs_its_feature_gate(parameters: Any, kind: DeviceKind, field: str, gate: str) -> None:
    stored = claim("u1", result("gpu-0"), configs=[opaque(parameters)])
    allocated = check_claim(stored, ref("u1"), DRIVER, NODE)
    with pytest.raises(UnsupportedConfig) as caught:
        resolve_configs(allocated, [TAKEN[kind]], GATES - {gate})
    where = f"config[0].opaque.parameters.{field}: needs feature gate {gate}, which "
    assert where in str(caught.value)
    (found,) = resolve_configs(allocated, [TAKEN[kind]], {gate})
    assert found.origin
