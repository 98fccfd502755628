"""The part of DriverConfiguration about MIG: which GPUs are partitioned, and how. ``dra_driver.devices`` acts by it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, ValidationError, WithJsonSchema, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from api.base import ApiModel
from api.mig_layouts import LayoutEntry, MigLayouts
from api.shape import closest
from api.strict import show

# Comments in place of docstrings: those would become descriptions in the CRD and the chart's schema.


# What is offered of a GPU that has MIG; ``dra_driver.devices.offered`` has it to the letter.
class MigMode(StrEnum):
    DYNAMIC = "dynamic"  # the whole GPU and every placement of every profile; created when a claim is prepared
    STATIC = "static"  # the MIG devices that exist; the whole GPU when its MIG mode is off
    OFF = "off"  # the whole GPU, as if there were no MIG


# What the order of MIG devices looks at; ``docs/dev/packing.md`` has what each one gains.
class MigPacking(StrEnum):
    PER_GPU = "perGPU"  # nothing: GPU by GPU, in the order of ``dra_driver.devices.packing``
    ACROSS_GPUS = "acrossGPUs"  # what is in use on the node, see ``dra_driver.devices.reordering``


def _off_is_no_boolean(value: object) -> object:
    """YAML 1.1, which Helm, kubectl and PyYAML read, takes an unquoted ``off`` for false."""
    return MigMode.OFF.value if value is False else value


_MIG_MODE_SCHEMA = WithJsonSchema({"enum": [*(mode.value for mode in MigMode), False]}, mode="validation")
_Pattern = Annotated[str, Field(min_length=1)]
_Minor = Annotated[StrictInt, Field(ge=0)]


class GpuSelectorSettings(ApiModel):
    """Which GPUs: those that match every list that is given."""

    nodes: list[_Pattern] = Field(default_factory=list, description="Names of nodes; * and ? stand for any text.")
    products: list[_Pattern] = Field(
        default_factory=list, description='Product names as nvidia-smi prints them; "NVIDIA H100*" is a pattern.'
    )
    architectures: list[_Pattern] = Field(default_factory=list, description="Architectures, such as Hopper.")
    uuids: list[_Pattern] = Field(default_factory=list, description="UUIDs of GPUs.")
    minors: list[_Minor] = Field(
        default_factory=list, description="Minor numbers: the N of device gpu-N and of /dev/nvidiaN."
    )


class MigRuleSettings(ApiModel):
    """What is done about MIG with the GPUs that the rule selects."""

    selector: GpuSelectorSettings = Field(
        default=GpuSelectorSettings(), description="Which GPUs. Without any list: all of them."
    )
    mode: Annotated[MigMode | None, BeforeValidator(_off_is_no_boolean), _MIG_MODE_SCHEMA] = Field(
        default=None,
        description="dynamic: the whole GPU or MIG devices, which are created when a claim is prepared. "
        "static: the MIG devices that exist, or the whole GPU while MIG mode is off. off: the whole GPU only. "
        "Not set: dynamic where MIG mode can be changed without a reset (Hopper and newer), static where MIG mode is "
        "on already, else off.",
    )
    partial_compute_instances: StrictBool = Field(
        default=False,
        description="Dynamic GPUs also offer compute instances that are a part of their GPU instance (1c.3g.40gb).",
    )
    adopt_foreign: StrictBool = Field(
        default=False,
        description="On dynamic GPUs, GPU instances that no claim made may be removed where a claim needs the place. "
        "Off: they stay, and the devices in whose way they are get a taint.",
    )
    keep_mode: StrictBool = Field(
        default=False, description="On dynamic GPUs, MIG mode stays on when the last MIG device is gone."
    )
    layout: str = Field(
        default="", description="Named layout that the plugin brings about while no claim holds the GPU; mode: static."
    )

    @model_validator(mode="after")
    def _layout_is_static(self) -> Self:
        if self.layout and self.mode is not MigMode.STATIC:
            message = "a layout needs mode: static"
            hint = "MIG devices of a dynamic GPU are created by claims, and with mode off there are none"
            raise PydanticCustomError("problem", "{message}", {"message": message, "hint": hint})
        return self


class MigSettings(ApiModel):
    rules: list[MigRuleSettings] = Field(
        default_factory=list, description="How GPUs are partitioned; the first rule that selects a GPU decides."
    )
    packing: MigPacking = Field(
        default=MigPacking.PER_GPU,
        description="Where claims for MIG devices go on a node. perGPU: the first GPU on which they fit. acrossGPUs: "
        "where they break up the least, on any GPU; ResourceSlices are written again when claims have changed, every "
        "30 s at most. Has no effect before Kubernetes 1.35.",
    )
    layouts: MigLayouts | None = Field(
        default=None, description="Named layouts that rules may ask for: the content of a mig-parted file as it is."
    )

    @model_validator(mode="after")
    def _layouts_exist(self) -> Self:
        known = list(self.layouts.mig_configs) if self.layouts else []
        wrong = [
            InitErrorDetails(type=_no_layout(rule.layout, known), loc=("rules", index, "layout"), input=rule.layout)
            for index, rule in enumerate(self.rules)
            if rule.layout and rule.layout not in known
        ]
        if wrong:
            raise ValidationError.from_exception_data("mig", wrong)
        return self

    def layout(self, name: str) -> Sequence[LayoutEntry]:
        """The entries of a layout that a rule names."""
        return self.layouts.mig_configs[name] if self.layouts else ()


def _no_layout(name: str, known: Sequence[str]) -> PydanticCustomError:
    close = closest(name, known)
    there = f"there are: {', '.join(known)}" if known else "layouts has none"
    hint = f"did you mean {close}?" if close else there
    return PydanticCustomError("problem", "there is no layout {given}", {"given": show(name), "hint": hint})
