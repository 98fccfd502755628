"""Claim configurations: what is accepted with which meaning, and the words for what is not."""

from __future__ import annotations

from typing import Any

import pytest

from api.claim_config import (
    API_VERSION,
    BackendPolicy,
    ClaimConfig,
    GpuConfig,
    MigDeviceConfig,
    SharingStrategy,
    TimeSliceInterval,
    TimeSlicingConfig,
    VfioDeviceConfig,
    decode,
)
from api.strict import DecodeError

UUID = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"
MIG_UUID = "MIG-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"


def config(kind: str = "GpuConfig", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, **fields}


def mps(kind: str = "GpuConfig", **fields: Any) -> dict[str, Any]:
    return config(kind, sharing={"strategy": "MPS", "mpsConfig": fields})


def problems(parameters: object, path: str = "") -> list[str]:
    with pytest.raises(DecodeError) as caught:
        decode(parameters, path=path)
    return [str(problem) for problem in caught.value.problems]


ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # given, normalised
    (config(), config()),
    (config(sharing=None), config()),
    (
        config(sharing={"strategy": "TimeSlicing"}),
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Default"}}),
    ),
    (
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {}, "mpsConfig": None}),
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Default"}}),
    ),
    (
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": None}}),
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Default"}}),
    ),
    (
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}}),
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}}),
    ),
    (config(sharing={"strategy": "MPS"}), mps()),
    (mps(), mps()),
    (
        mps(
            defaultActiveThreadPercentage=0,
            defaultPinnedDeviceMemoryLimit="10Gi",
            defaultPerDevicePinnedMemoryLimit={"0": "8Gi", "11": 2**30, UUID: "1048576", MIG_UUID: "2e9"},
            multiUser=True,
        ),
        mps(
            defaultActiveThreadPercentage=0,
            defaultPinnedDeviceMemoryLimit="10Gi",
            defaultPerDevicePinnedMemoryLimit={"0": "8Gi", "11": "1073741824", UUID: "1048576", MIG_UUID: "2e9"},
            multiUser=True,
        ),
    ),
    (mps(defaultActiveThreadPercentage=100, multiUser=False), mps(defaultActiveThreadPercentage=100, multiUser=False)),
    (config("MigDeviceConfig"), config("MigDeviceConfig")),
    (
        config("MigDeviceConfig", sharing={"strategy": "TimeSlicing"}),
        config("MigDeviceConfig", sharing={"strategy": "TimeSlicing"}),
    ),
    (config("MigDeviceConfig", sharing={"strategy": "MPS"}), mps("MigDeviceConfig")),
    (
        config("VfioDeviceConfig"),
        config("VfioDeviceConfig", iommu={"backendPolicy": "LegacyOnly", "enableAPIDevice": False}),
    ),
    (
        config("VfioDeviceConfig", iommu={"backendPolicy": "PreferIommuFD"}),
        config("VfioDeviceConfig", iommu={"backendPolicy": "PreferIommuFD", "enableAPIDevice": False}),
    ),
    (
        config("VfioDeviceConfig", iommu={"enableAPIDevice": True}),
        config("VfioDeviceConfig", iommu={"backendPolicy": "LegacyOnly", "enableAPIDevice": True}),
    ),
]


@pytest.mark.parametrize(("given", "normalised"), ACCEPTED)
def test_accepted_and_normalised(given: dict[str, Any], normalised: dict[str, Any]) -> None:
    decoded = decode(given)
    assert decoded.normalize().to_wire() == normalised
    assert decoded.normalize().normalize() == decoded.normalize()
    assert decode(decoded.normalize().to_wire()) == decoded.normalize()


def test_typed_access() -> None:
    decoded = decode(config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Medium"}}))
    assert isinstance(decoded, GpuConfig)
    assert decoded.sharing is not None
    assert decoded.sharing.strategy is SharingStrategy.TIME_SLICING
    assert decoded.sharing.time_slicing_config == TimeSlicingConfig(interval=TimeSliceInterval.MEDIUM)
    assert isinstance(decode(config("MigDeviceConfig")), MigDeviceConfig)
    vfio = decode(config("VfioDeviceConfig", iommu={"backendPolicy": "PreferIommuFD", "enableAPIDevice": True}))
    assert isinstance(vfio, VfioDeviceConfig)
    assert vfio.iommu is not None
    assert (vfio.iommu.backend_policy, vfio.iommu.enable_api_device) == (BackendPolicy.PREFER_IOMMU_FD, True)


REFUSED: list[tuple[object, list[str]]] = [
    # misspelt and misplaced fields
    (
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"intervl": "Long"}}),
        ["spec.sharing.timeSlicingConfig.intervl: unknown field, did you mean interval?"],
    ),
    (config(Sharing={"strategy": "MPS"}), ["spec.Sharing: unknown field, did you mean sharing?"]),
    (config(spec={}), ["spec.spec: unknown field, known fields: apiVersion, kind, sharing"]),
    (
        config(sharing={"strategy": "TimeSlicing", "interval": "Long"}),
        ["spec.sharing.interval: unknown field, it belongs under timeSlicingConfig"],
    ),
    (
        config(sharing={"strategy": "TimeSlicing", "time_slicing_config": {}}),
        ["spec.sharing.time_slicing_config: unknown field, did you mean timeSlicingConfig?"],
    ),
    (
        config("VfioDeviceConfig", iommu={"enableApiDevice": True}),
        ["spec.iommu.enableApiDevice: unknown field, did you mean enableAPIDevice?"],
    ),
    (
        config("MigDeviceConfig", sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}}),
        ["spec.sharing.timeSlicingConfig: unknown field, a MIG device has no time-slice interval: remove it"],
    ),
    (
        config("MigDeviceConfig", sharing={"strategy": "MPS", "timeSlicingConfig": {}}),
        ["spec.sharing.timeSlicingConfig: unknown field, a MIG device has no time-slice interval: remove it"],
    ),
    # values outside their set
    (
        config(sharing={"strategy": "Mps"}),
        ['spec.sharing.strategy: must be one of TimeSlicing, MPS, not "Mps", did you mean MPS?'],
    ),
    (config(sharing={"strategy": "Fabric"}), ['spec.sharing.strategy: must be one of TimeSlicing, MPS, not "Fabric"']),
    (config(sharing={"strategy": None}), ["spec.sharing.strategy: must be one of TimeSlicing, MPS, not null"]),
    (config(sharing={}), ["spec.sharing.strategy: required, one of TimeSlicing, MPS"]),
    (
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Forever"}}),
        ['spec.sharing.timeSlicingConfig.interval: must be one of Default, Short, Medium, Long, not "Forever"'],
    ),
    (
        config(sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": 3}}),
        ["spec.sharing.timeSlicingConfig.interval: must be one of Default, Short, Medium, Long, not 3"],
    ),
    (
        config("VfioDeviceConfig", iommu={"backendPolicy": "Legacy"}),
        ['spec.iommu.backendPolicy: must be one of LegacyOnly, PreferIommuFD, not "Legacy", did you mean LegacyOnly?'],
    ),
    # wrong types
    (config(sharing=[]), ["spec.sharing: must be an object, not a list"]),
    (config(sharing="MPS"), ['spec.sharing: must be an object, not "MPS"']),
    (
        mps(defaultActiveThreadPercentage="50", multiUser="yes"),
        [
            'spec.sharing.mpsConfig.defaultActiveThreadPercentage: must be a whole number, not "50"',
            'spec.sharing.mpsConfig.multiUser: must be true or false, not "yes"',
        ],
    ),
    (
        mps(defaultActiveThreadPercentage=50.0, multiUser=1),
        [
            "spec.sharing.mpsConfig.defaultActiveThreadPercentage: must be a whole number, not 50.0",
            "spec.sharing.mpsConfig.multiUser: must be true or false, not 1",
        ],
    ),
    (
        mps(defaultActiveThreadPercentage=True),
        ["spec.sharing.mpsConfig.defaultActiveThreadPercentage: must be a whole number, not true"],
    ),
    (
        mps(defaultPerDevicePinnedMemoryLimit=["1Gi"]),
        ["spec.sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit: must be an object, not a list"],
    ),
    # ranges and quantities
    (
        mps(defaultActiveThreadPercentage=-1),
        ["spec.sharing.mpsConfig.defaultActiveThreadPercentage: must be 1 to 100, not -1"],
    ),
    (
        mps(defaultActiveThreadPercentage=101),
        ["spec.sharing.mpsConfig.defaultActiveThreadPercentage: must be 1 to 100, not 101"],
    ),
    (
        mps(defaultPinnedDeviceMemoryLimit="10 GB"),
        [
            ("spec.sharing.mpsConfig.defaultPinnedDeviceMemoryLimit: must be a quantity of memory, "
            'not "10 GB", write it like "512Mi" or "10Gi"')
        ],
    ),
    (
        mps(defaultPinnedDeviceMemoryLimit="1023Ki"),
        [
            ("spec.sharing.mpsConfig.defaultPinnedDeviceMemoryLimit: must be at least 1Mi, "
            'not "1023Ki", write it like "512Mi" or "10Gi"')
        ],
    ),
    (
        mps(defaultPerDevicePinnedMemoryLimit={"0": None, "1": True}),
        [
            f'spec.sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit["{key}"]: must be a quantity of memory, '
            f'not {value}, write it like "512Mi" or "10Gi"'
            for key, value in (("0", "null"), ("1", "true"))
        ],
    ),
    (
        mps(defaultPerDevicePinnedMemoryLimit={"gpu-0": "1Gi", "-1": "1Gi", "01": "1Gi"}),
        [
            f"spec.sharing.mpsConfig.defaultPerDevicePinnedMemoryLimit{where}: must be the index or the UUID of a "
            f'device, not "{key}", write it like "0" or "{UUID}"'
            for where, key in ((".gpu-0", "gpu-0"), ('["-1"]', "-1"), ('["01"]', "01"))
        ],
    ),
    # contradictions
    (
        config(sharing={"strategy": "TimeSlicing", "mpsConfig": {}}),
        ["spec.sharing.mpsConfig: cannot be used with strategy TimeSlicing, remove it, or set strategy to MPS"],
    ),
    (
        config(sharing={"strategy": "MPS", "timeSlicingConfig": {"interval": "Long"}}),
        ["spec.sharing.timeSlicingConfig: cannot be used with strategy MPS, remove it, or set strategy to TimeSlicing"],
    ),
    (
        config("MigDeviceConfig", sharing={"strategy": "TimeSlicing", "mpsConfig": {"multiUser": True}}),
        ["spec.sharing.mpsConfig: cannot be used with strategy TimeSlicing, remove it, or set strategy to MPS"],
    ),
    # apiVersion and kind
    (
        {},
        [
            f"spec.apiVersion: required, set it to {API_VERSION} or gpu-dra.dev/v1alpha1",
            "spec.kind: required, one of GpuConfig, MigDeviceConfig, VfioDeviceConfig, FractionConfig",
        ],
    ),
    (
        config("GPUConfig"),
        [
            ("spec.kind: must be one of GpuConfig, MigDeviceConfig, VfioDeviceConfig, FractionConfig, "
            'not "GPUConfig", did you mean GpuConfig?')
        ],
    ),
    (
        {"apiVersion": API_VERSION, "kind": ["GpuConfig"]},
        ["spec.kind: must be one of GpuConfig, MigDeviceConfig, VfioDeviceConfig, FractionConfig, not a list"],
    ),
    (
        {"apiVersion": "gpu.nvidia.com/v1alpha1", "kind": "GpuConfig", "strategy": "MPS"},
        [
            f'spec.apiVersion: must be {API_VERSION}, not "gpu.nvidia.com/v1alpha1"',
            "spec.strategy: unknown field, it belongs under sharing",
        ],
    ),
    (
        config("ComputeDomainChannelConfig", domainID="x"),
        [
            ("spec.kind: ComputeDomainChannelConfig is not a kind of this driver, it belongs to driver "
            "compute-domain.nvidia.com: set opaque.driver to that, or remove this configuration")
        ],
    ),
    # not an object at all
    (None, ["spec: must be an object, not null, of kind GpuConfig or MigDeviceConfig or VfioDeviceConfig or FractionConfig"]),
    (
        "{}",
        ['spec: must be an object, not "{}", of kind GpuConfig or MigDeviceConfig or VfioDeviceConfig or FractionConfig'],
    ),
    (b"{}", ["spec: must be a JSON value, not a Python bytes"]),
    (config(sharing={1: "MPS"}), ["spec.sharing: keys must be text, not 1, put it in quotes"]),
    (mps(defaultActiveThreadPercentage=float("nan")), [
        "spec.sharing.mpsConfig.defaultActiveThreadPercentage: must be a finite number"
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "expected"), REFUSED)
def test_refused_with_path_value_and_remedy(parameters: object, expected: list[str]) -> None:
    assert problems(parameters, path="spec") == expected


def test_every_problem_is_reported_at_once() -> None:
    given = config(
        sharing={"strategy": "TimeSlicing", "timeSlicingConfig": {"intervl": 1}, "mpsConfig": 5, "x": 1}, other=1
    )
    assert [line.split(":")[0] for line in problems(given)] == [
        "sharing.mpsConfig",
        "sharing.timeSlicingConfig.intervl",
        "sharing.x",
        "other",
    ]


def test_the_path_is_a_prefix_and_may_be_left_out() -> None:
    assert problems(config(sharing=5)) == ["sharing: must be an object, not 5"]
    where = "spec.devices.config[2].opaque.parameters"
    assert problems(config(sharing=5), where) == [f"{where}.sharing: must be an object, not 5"]


def test_the_given_value_is_kept() -> None:
    with pytest.raises(DecodeError) as caught:
        decode(config(sharing={"strategy": "Mps"}))
    assert caught.value.problems[0].value == "Mps"


GATES: list[tuple[dict[str, Any], str, str]] = [
    (config(sharing={"strategy": "TimeSlicing"}), "spec.sharing.strategy", "TimeSlicingSettings"),
    (config(sharing={"strategy": "MPS"}), "spec.sharing.strategy", "MPSSupport"),
    (config("MigDeviceConfig", sharing={"strategy": "MPS"}), "spec.sharing.strategy", "MPSSupport"),
    (config("VfioDeviceConfig"), "spec.kind", "PassthroughSupport"),
]


@pytest.mark.parametrize(("parameters", "where", "gate"), GATES)
def test_a_feature_that_is_off_is_named_with_its_gate(parameters: dict[str, Any], where: str, gate: str) -> None:
    decoded = decode(parameters)
    decoded.require_gates({gate, "Other"}, path="spec")
    with pytest.raises(DecodeError, match=f"needs feature gate {gate}, which ") as caught:
        decoded.require_gates({"Other"}, path="spec")
    assert caught.value.problems[0].path == where


def test_a_gate_that_only_is_off_is_the_administrators_to_switch_on() -> None:
    with pytest.raises(DecodeError, match="needs feature gate TimeSlicingSettings, which is off, ask your admini"):
        decode(config(sharing={"strategy": "TimeSlicing"})).require_gates(())


NEED_NONE = [config(), config("MigDeviceConfig"), config("MigDeviceConfig", sharing={"strategy": "TimeSlicing"})]


@pytest.mark.parametrize("parameters", NEED_NONE)
def test_what_changes_nothing_needs_no_gate(parameters: dict[str, Any]) -> None:
    decoded: ClaimConfig = decode(parameters)
    decoded.require_gates(())
