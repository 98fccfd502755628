"""What a client gets, and the values of the language: pure."""

from __future__ import annotations

import pytest

from dra_driver.simulation.hardware.mps import context, namespace, values
from dra_driver.simulation.hardware.mps.context import Refused
from dra_driver.simulation.hardware.mps.devices import EXCLUSIVE_PROCESS, PROHIBITED, Device, User, visible

ONE = Device("GPU-1a", 0, 80 << 30, 0, False, 48, ())
TWO = Device("GPU-2b", 1, None, 0, False, 48, ())


@pytest.mark.parametrize(
    ("names", "found", "unknown"),
    [
        (None, (ONE, TWO), ()),
        ("1", (TWO,), ()),
        ("GPU-2, GPU-1a", (TWO, ONE), ()),
        ("GPU-", (), ("GPU-",)),
        ("2", (), ("2",)),
        ("", (), ("",)),
        ("0,GPU-3c", (ONE,), ("GPU-3c",)),
    ],
)
def test_visible_devices(names: str | None, found: tuple[Device, ...], unknown: tuple[str, ...]) -> None:
    assert visible((ONE, TWO), names) == (found, unknown)


def test_what_the_environment_has_wrong_is_as_unset() -> None:
    assert context.parse_wish("7 - 200 0=1 -") == context.Wish(7, None, None, {}, 0)
    assert context.parse_wish("7 0,1 50 0=1G,GPU-2b=512M 3M") == context.Wish(
        7, "0,1", 50.0, {"0": 1 << 30, "GPU-2b": 512 << 20}, 3 << 20
    )


@pytest.mark.parametrize("text", ["", "7 - - -", "me - - - -", "7 - - - 3", "7 - - - 3M more"])
def test_a_wish_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="CUDA_ERROR_INVALID_VALUE"):
        context.parse_wish(text)


def test_memory_that_others_have_is_not_there() -> None:
    wish = context.parse_wish("7 0 - - 30G")
    assert context.grant(wish, (ONE, TWO), 50, {}, {"GPU-1a": 50 << 30}).allocated == 30 << 30
    with pytest.raises(Refused, match="asked for 30G, 30719M may be had"):
        context.grant(wish, (ONE, TWO), 50, {}, {"GPU-1a": (50 << 30) + 1})


def test_in_a_namespace_what_is_free_ends_at_its_limit_and_at_what_others_left() -> None:
    wish, priority = namespace.parse_wish("7 - - - 10G 1")
    limited = namespace.Namespace("a", memory=30 << 30)
    granted = namespace.grant(wish, priority, limited, (ONE, TWO), {"GPU-1a": 60 << 30})
    assert granted.free == {"GPU-1a": 10 << 30, "GPU-2b": 20 << 30}
    assert (granted.priority, granted.percentage) == (1, 100.0)
    unlimited = namespace.grant(wish, None, namespace.Namespace("a", percentage=40.0), (ONE, TWO), {})
    assert unlimited.free == {"GPU-1a": 70 << 30}
    assert (unlimited.priority, unlimited.percentage) == (0, 40.0)


def test_without_memory_of_its_own_a_device_has_no_end() -> None:
    wish = context.parse_wish("7 1 - - 3000G")
    granted = context.grant(wish, (ONE, TWO), 50, {}, {})
    assert context.describe(granted) == [
        "device.0=GPU-2b",
        "memory.0=unified",
        "memory_limit.0=none",
        "allocated=3072000M",
    ]


def test_compute_mode() -> None:
    def device(mode: int) -> Device:
        return Device("GPU-1a", 0, 1, mode, False, 48, ())

    context.require_free(device(0), (User(1, None),))
    context.require_free(device(EXCLUSIVE_PROCESS), ())
    for mode, users in ((EXCLUSIVE_PROCESS, (User(1, None),)), (PROHIBITED, ())):
        with pytest.raises(Refused, match="GPU-1a is busy or unavailable"):
            context.require_free(device(mode), users)


@pytest.mark.parametrize(("text", "size"), [("1M", 1 << 20), ("1024M", 1 << 30), ("3G", 3 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert values.memory(text) == size
    assert values.memory(values.memory_text(size)) == size
