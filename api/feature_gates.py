"""Feature gates: the names that NVIDIA's driver knows (its pkg/featuregates and Kubernetes' component-base/logs), and
what this version does with each.

A gate of another component is accepted, since one FEATURE_GATES value is usually given to all of them. A gate whose
feature this version does not have is refused when it is switched on: a claim that relies on it must not find out.
Defaults are NVIDIA's but for DynamicMIG, TimeSlicingSettings and MPSSupport, which are off there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, StrictBool, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from api.shape import closest


class GateState(StrEnum):
    """What this version does with a gate."""

    AVAILABLE = "available"
    MISSING = "not in this version"
    ELSEWHERE = "of another component; accepted, no effect here"


@dataclass(frozen=True, slots=True)
class FeatureGate:
    name: str
    state: GateState
    default: bool
    summary: str


def _table(*gates: FeatureGate) -> Mapping[str, FeatureGate]:
    return MappingProxyType({gate.name: gate for gate in gates})


_ON, _NO, _ELSE = GateState.AVAILABLE, GateState.MISSING, GateState.ELSEWHERE

FEATURE_GATES: Mapping[str, FeatureGate] = _table(
    FeatureGate("TimeSlicingSettings", _ON, True, "claims may choose a time-slice interval"),
    FeatureGate("MPSSupport", _ON, True, "claims may share a GPU through MPS"),
    FeatureGate("DynamicMIG", _ON, True, "MIG devices are created by claims unless spec.mig says otherwise"),
    FeatureGate("PassthroughSupport", _NO, False, "GPUs may be passed through to virtual machines (VFIO)"),
    FeatureGate("NVMLDeviceHealthCheck", _NO, False, "unhealthy GPUs are tainted"),
    FeatureGate("DeviceMetadata", _NO, False, "device metadata for virtual machines"),
    FeatureGate("DRAListTypeAttributes", _NO, False, "attributes with several values"),
    FeatureGate("ConsumableShares", _ON, False, "consumableShares offers every GPU in shares, without a fence"),
    FeatureGate("FabricManagerPartitioning", _NO, False, "NVLink partitions for passed-through GPUs"),
    FeatureGate("ContextualLogging", _ON, True, "log lines carry their context; always on here"),
    FeatureGate("LoggingAlphaOptions", _ELSE, False, "logging options of Kubernetes' Go programs"),
    FeatureGate("LoggingBetaOptions", _ELSE, True, "logging options of Kubernetes' Go programs"),
    FeatureGate("HostManagedIMEXDaemon", _ELSE, False, "compute domains"),
    FeatureGate("IMEXDaemonsWithDNSNames", _ELSE, True, "compute domains"),
    FeatureGate("ComputeDomainCliques", _ELSE, True, "compute domains"),
    FeatureGate("CrashOnNVLinkFabricErrors", _ELSE, True, "compute domains"),
)


def enabled(settings: Mapping[str, bool]) -> frozenset[str]:
    """The gates that are on: the given settings over the defaults."""
    return frozenset(gate.name for gate in FEATURE_GATES.values() if settings.get(gate.name, gate.default))


def parse(text: str) -> dict[str, bool]:
    """ "A=true,B=false" as the flag and the environment have it. ValueError says which part is wrong."""
    settings = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, separator, value = (token.strip() for token in part.partition("="))
        if not separator or value.lower() not in ("true", "false"):
            raise ValueError(f'"{part}" must be NAME=true or NAME=false')
        settings[name] = value.lower() == "true"
    return settings


def _checked(settings: dict[str, bool]) -> dict[str, bool]:
    wrong: list[InitErrorDetails] = []
    for name, on in settings.items():
        gate = FEATURE_GATES.get(name)
        if gate is None:
            close = closest(name, list(FEATURE_GATES))
            hint = f"did you mean {close}?" if close else f"known gates: {', '.join(FEATURE_GATES)}"
            wrong.append(_wrong(name, on, "unknown feature gate", hint))
        elif on and gate.state is GateState.MISSING:
            message = f"this version has no {name} ({gate.summary})"
            wrong.append(_wrong(name, on, message, "set it to false or remove it"))
    if wrong:
        raise ValidationError.from_exception_data("featureGates", wrong)
    return settings


def _wrong(name: str, value: bool, message: str, hint: str) -> InitErrorDetails:
    error = PydanticCustomError("problem", "{message}", {"message": message, "hint": hint})
    return InitErrorDetails(type=error, loc=(name,), input=value)


FeatureGateSettings = Annotated[
    dict[str, StrictBool],
    AfterValidator(_checked),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                gate.name: {"type": "boolean", "description": f"{gate.summary} ({gate.state})"}
                for gate in FEATURE_GATES.values()
            },
            "additionalProperties": False,
        }
    ),
]
