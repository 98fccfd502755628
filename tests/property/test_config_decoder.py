"""Whatever is given to the decoders of configuration, the answer is a configuration or a DecodeError.

Ten thousand inputs: 500 valid configurations, 3750 with at least two parts replaced, removed, renamed, wrapped or added
(decoded after each change), and 2000 arbitrary values that JSON and Python can make. ``make test`` tries a fifth of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import fractions
from api.claim_config import (
    API_VERSION,
    KINDS,
    BackendPolicy,
    ClientPriority,
    SharingStrategy,
    TimeSliceInterval,
    decode,
)
from api.strict import DecodeError
from tests.long_runs import steps

FAST = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

QUANTITIES = st.sampled_from(["1Mi", "10Gi", "1e9", "500M", 1 << 30])
DEVICES = st.sampled_from(["0", "7", "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"])
MPS = st.fixed_dictionaries(
    {},
    optional={
        "defaultActiveThreadPercentage": st.integers(0, 100),
        "defaultPinnedDeviceMemoryLimit": QUANTITIES,
        "defaultPerDevicePinnedMemoryLimit": st.dictionaries(DEVICES, QUANTITIES, max_size=2),
        "multiUser": st.booleans(),
    },
)
TIME_SLICING = st.fixed_dictionaries({}, optional={"interval": st.sampled_from([str(i) for i in TimeSliceInterval])})
IOMMU = st.fixed_dictionaries(
    {},
    optional={"backendPolicy": st.sampled_from([str(p) for p in BackendPolicy]), "enableAPIDevice": st.booleans()},
)


def sharing(strategy: SharingStrategy, block: str, content: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"strategy": st.just(str(strategy))}, optional={block: content | st.none()})


MPS_SHARING = sharing(SharingStrategy.MPS, "mpsConfig", MPS)
MIG_SHARING = MPS_SHARING | st.just({"strategy": "TimeSlicing"})
GPU_SHARING = MPS_SHARING | sharing(SharingStrategy.TIME_SLICING, "timeSlicingConfig", TIME_SLICING)


def kind(
    name: str, version: str = API_VERSION, **optional: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"apiVersion": st.just(version), "kind": st.just(name)}, optional=optional)


VALID = (
    kind("GpuConfig", sharing=GPU_SHARING)
    | kind("MigDeviceConfig", sharing=MIG_SHARING)
    | kind("VfioDeviceConfig", iommu=IOMMU)
    | kind(
        "FractionConfig",
        fractions.API_VERSION,
        minimumEnforcement=st.sampled_from([str(e) for e in fractions.Enforcement]) | st.none(),
        memoryLimit=QUANTITIES | st.none(),
        priority=st.sampled_from([str(p) for p in ClientPriority]) | st.none(),
    )
)

# Names and values that come close, and ones that no one would write. Few strategies, since drawing costs more than
# decoding.
NAMES = st.sampled_from(
    ["apiVersion", "kind", "sharing", "iommu", "strategy", "interval", "mpsConfig", "timeSlicingConfig", "multiUser",
     "multi_user", "minimumEnforcement", "memoryLimit", "priority", "intervl", "", "0", "[key]", "\x00", "\ud800", "a.b", "spec", "__class__", "model_config"]
)  # fmt: skip
NEAR: list[Any] = [
    *KINDS,
    "MPS",
    "TimeSlicing",
    "Long",
    "ComputeDomainChannelConfig",
    API_VERSION,
    fractions.API_VERSION,
    "Cooperative",
    "Low",
    "1Ei",
    "-1Gi",
    "10 Gi",
    50,
    101,
]
FAR: list[Any] = [None, True, float("nan"), float("inf"), 1e300, 10**400, -(2**63), "9" * 70, "1e999999999", "\ud800", b"x", 1j,
       object(), (), {1}, Exception]  # fmt: skip
BOXES: list[Any] = [[], {}, [[]], [None], {"a": {}}, {1: 2}, {None: None}, {"interval": "Long"}, ["MPS"]]
ODD_KEYS = st.sampled_from([0, -1, None, True, b"k", (1,), 2.5])
SCALARS = st.sampled_from([*NEAR, *FAR]) | st.integers() | st.floats() | st.text(max_size=8)
JUNK: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES, inner, max_size=3)
        | st.dictionaries(ODD_KEYS, inner, max_size=2)
    ),
    max_leaves=5,
)
SMALL = st.sampled_from([*NEAR, *FAR, *BOXES]) | st.text(max_size=8)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a structure."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        for key in value:
            found += [(value, key), *places(value[key])]
    return found


Mutation = Callable[[Any, Any, Any, str], None]


def replace(container: Any, key: Any, junk: Any, _: str) -> None:
    container[key] = junk


def remove(container: Any, key: Any, _: Any, __: str) -> None:
    container.pop(key, None)


def rename(container: Any, key: Any, _: Any, name: str) -> None:
    container[name] = container.pop(key, None)


def add(container: Any, _: Any, junk: Any, name: str) -> None:
    container[name] = junk


def wrap(container: Any, key: Any, _: Any, __: str) -> None:
    container[key] = [container.get(key)]


MUTATIONS: st.SearchStrategy[Mutation] = st.sampled_from([replace, remove, rename, add, wrap])
CHANGES = st.lists(st.tuples(MUTATIONS, st.integers(0, 30), SMALL, NAMES), min_size=2, max_size=4)


def check_complete(error: DecodeError) -> None:
    """There is a problem, each names a place below the given path, and the text can be put into an Event."""
    assert error.problems
    for problem in error.problems:
        assert problem.path.startswith("spec")
        assert problem.message
        assert len(str(problem)) < 2000
    assert str(error).isprintable()


def check(parameters: object) -> bool:
    """Decodes; True when it was accepted, and then what is written again is the same configuration."""
    try:
        config = decode(parameters, path="spec")
    except DecodeError as error:
        check_complete(error)
        return False
    normalised = config.normalize()
    assert decode(normalised.to_wire()) == normalised
    return True


@settings(FAST, max_examples=steps(500, 100))
@given(VALID)
def test_valid_configurations_are_accepted(parameters: dict[str, Any]) -> None:
    assert check(parameters)


@settings(FAST, max_examples=steps(3750, 750))
@given(VALID, CHANGES)
def test_changed_configurations_never_crash(
    parameters: dict[str, Any], changes: list[tuple[Mutation, int, Any, str]]
) -> None:
    changed = copy.deepcopy(parameters)
    for mutate, index, junk, name in changes:
        targets = places(changed)
        if targets:
            container, key = targets[index % len(targets)]
            mutate(container, key, copy.deepcopy(junk), name)
        check(changed)


@settings(FAST, max_examples=steps(2000, 400))
@given(JUNK)
def test_arbitrary_values_never_crash(junk: Any) -> None:
    check(junk)
