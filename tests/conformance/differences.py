"""Every difference between our slices and the recorded ones of NVIDIA's driver, with its reason.

``tests/conformance/test_whole_gpus.py`` and ``test_mig.py`` fail on a difference that is not here, on one here that
does not show, and when the tables of ``docs/dev/compatibility.md`` are not these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """``field`` is a path in the slice with ``*`` for any device; ``setting`` says when the difference shows."""

    field: str
    theirs: str
    ours: str
    setting: str
    reason: str


ALWAYS = "always"
ADDITIONAL_ATTRIBUTES = "additional attributes on"

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "spec.devices (order)",
        "random, another one after each restart",
        "by PCI bus id",
        ALWAYS,
        "The scheduler takes the first device that fits, so the order is the packing policy; and a fixed order means "
        "that a restart writes nothing, where NVIDIA's driver rewrites its slice.",
    ),
    Difference(
        "spec.devices[*].attributes[minor]",
        "absent",
        "int",
        ADDITIONAL_ATTRIBUTES,
        "Ties a device to `/dev/nvidia<minor>` for people and monitoring. Off by default, since a manifest that selects "
        "by it runs with this driver only.",
    ),
    Difference(
        "spec.devices[*].attributes[migCapable]",
        "absent",
        "bool",
        ADDITIONAL_ATTRIBUTES,
        "Lets a selector keep jobs without MIG off GPUs that could be partitioned. Off by default, as above.",
    ),
)


DYNAMIC = "dynamic MIG"
DYNAMIC_WITH_WHOLE_GPUS = "dynamic MIG, Hopper and newer"
DYNAMIC_WITHOUT_COUNTERS = "dynamic MIG, no GPU that can be divided"
STATIC = "static MIG"

MIG_DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "spec.devices (order)",
        "by name",
        "the whole GPU, then what destroys least of the larger placements",
        DYNAMIC,
        "The scheduler takes the first device that fits. By name, the first 3g of an A100 sits on the only place of a "
        "4g; see docs/dev/packing.md.",
    ),
    Difference(
        "spec.devices[gpu-*].capacity[memory].value",
        "81152Mi, that of the largest profile",
        "80Gi, that of the GPU",
        DYNAMIC_WITH_WHOLE_GPUS,
        "A manifest that asks for the memory of a whole GPU, written without DynamicMIG, would wait forever. What the "
        "GPU takes from the counters is the same.",
    ),
    Difference(
        "slices",
        "an empty one, then one for each GPU",
        "one for all GPUs",
        DYNAMIC_WITHOUT_COUNTERS,
        "Without counters there is nothing to keep apart: the slices are those without MIG, and a change of the "
        "policy that divides no GPU writes nothing.",
    ),
    Difference(
        "spec.devices (order)",
        "random, another one after each restart",
        "by PCI bus id, on each GPU the smallest MIG device first",
        STATIC,
        "As for whole GPUs; and a request by capacity takes the smallest device that satisfies it.",
    ),
)


def table() -> str:
    """The table of whole GPUs as docs/dev/compatibility.md shows it."""
    return _table(DIFFERENCES)


def mig_table() -> str:
    """The table of GPUs with MIG."""
    return _table(MIG_DIFFERENCES)


def _table(differences: Sequence[Difference]) -> str:
    rows = [f"| `{d.field}` | {d.theirs} | {d.ours} | {d.setting} | {d.reason} |" for d in differences]
    return "\n".join(["| Field | NVIDIA's driver | gpu-dra | When | Why |", "|---|---|---|---|---|", *rows])
