"""Every difference between our slices and the recorded ones of NVIDIA's driver, with its reason.

``tests/conformance/test_whole_gpus.py`` fails on a difference that is not here, on one here that does not show, and
when the table of ``docs/dev/compatibility.md`` is not this one.
"""

from __future__ import annotations

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


def table() -> str:
    """The table as docs/dev/compatibility.md shows it."""
    rows = [f"| `{d.field}` | {d.theirs} | {d.ours} | {d.setting} | {d.reason} |" for d in DIFFERENCES]
    return "\n".join(["| Field | NVIDIA's driver | gpu-dra | When | Why |", "|---|---|---|---|---|", *rows])
