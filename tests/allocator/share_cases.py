"""What claims get of devices that are given in shares, case by case, as kube-scheduler decides it.

Our allocator is held to them by ``test_shares``, and kube-scheduler's own by ``tests/contract/test_allocator``. Each
case is one node; names of devices tell their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dra_driver.allocator.model import Obj
from tests.allocator.builders import DRIVER, alternative, claim, device_class, request, resource_slice

CLASSES = [
    device_class(DRIVER, f"device.driver == '{DRIVER}'"),
    device_class("shared", "device.allowMultipleAllocations"),
    device_class("whole", "!device.allowMultipleAllocations"),
]
Given = tuple[str, str, dict[str, str] | None]
"""Request, device and what is consumed of it; None for a whole device."""


@dataclass(frozen=True, slots=True)
class Case:
    """``given`` is what each wanted claim gets; None when they do not fit, the word of an error when they end the
    scheduling of their pod."""

    devices: list[Obj]
    wanted: list[Obj]
    given: list[list[Given]] | str | None
    held: list[Obj]
    counters: dict[str, str]

    @property
    def slices(self) -> list[Obj]:
        if not self.counters:
            return [resource_slice("n", self.devices)]
        counters = resource_slice("n", [], name="00001-n", count=2)
        values = {name: {"value": value} for name, value in self.counters.items()}
        counters["spec"] |= {"devices": None, "sharedCounters": [{"name": "set", "counters": values}]}
        return [resource_slice("n", self.devices, count=2), counters]


def case(
    devices: list[Obj],
    *wanted: Obj,
    given: list[list[Given]] | str | None,
    held: list[Obj] | None = None,
    **counters: str,
) -> Case:
    return Case(devices, list(wanted), given, held or [], counters)


def capacity(value: str, **policy: Any) -> Obj:
    return {"value": value, **({"requestPolicy": policy} if policy else {})}


def shared(name: str, *, consumes: str = "", attributes: Obj | None = None, **capacities: Obj) -> Obj:
    return {**whole(name, consumes=consumes, attributes=attributes, **capacities), "allowMultipleAllocations": True}


def whole(name: str, *, consumes: str = "", attributes: Obj | None = None, **capacities: Obj) -> Obj:
    device: Obj = {"name": name, "attributes": attributes or {}, "capacity": capacities}
    if consumes:
        device["consumesCounters"] = [{"counterSet": "set", "counters": {"slices": {"value": consumes}}}]
    return device


def asks(name: str = "r", class_name: str = DRIVER, *expressions: str, count: int = 1, **amounts: str) -> Obj:
    """A request with its defaults filled in."""
    asked: Obj = {"capacity": {"requests": amounts}} if amounts else {}
    return request(name, *expressions, class_name=class_name, allocationMode="ExactCount", count=count, **asked)


def asks_all(name: str = "r", **amounts: str) -> Obj:
    asked: Obj = {"capacity": {"requests": amounts}} if amounts else {}
    return request(name, allocationMode="All", **asked)


def option(name: str, **amounts: str) -> Obj:
    return alternative(name, allocationMode="ExactCount", count=1, capacity={"requests": amounts})


def has(name: str, device: str, consumed: dict[str, str] | None, *, share: bool = True) -> Obj:
    """A claim that was allocated before."""
    result: Obj = {"request": "r", "driver": DRIVER, "pool": "n", "device": device}
    if share:
        result["shareID"] = f"11111111-0000-4000-8000-{len(name):012}"
    if consumed is not None:
        result["consumedCapacity"] = consumed
    return {**claim(name, asks()), "status": {"allocation": {"devices": {"results": [result]}}}}


def one(name: str, **amounts: str) -> Obj:
    asked: Obj = dict(amounts)
    return claim(name, asks(**asked))


def share_of(device: str, request_name: str = "r", **consumed: str) -> list[Given]:
    return [(request_name, device, consumed)]


PLAIN = capacity("2")
FOUR = capacity("4", default="1", validValues=["1"])
PAIRS = capacity("4", default="2", validRange={"min": "2", "max": "4", "step": "2"})
QUALIFIED = request("r", allocationMode="ExactCount", count=1, capacity={"requests": {f"{DRIVER}/m": "1"}})
BEYOND = "18446744073709551616"

CASES: dict[str, Case] = {
    "nothing asked, no policy: all of it": case(
        [shared("a", m=PLAIN), shared("b", m=PLAIN)],
        one("1"),
        one("2"),
        given=[share_of("a", m="2"), share_of("b", m="2")],
    ),
    "nothing asked, no policy: nothing for the second": case([shared("a", m=PLAIN)], one("1"), one("2"), given=None),
    "a part of it, no policy": case(
        [shared("a", m=PLAIN)], one("1", m="1"), one("2", m="1"), given=[share_of("a", m="1"), share_of("a", m="1")]
    ),
    "nothing asked: the default": case(
        [shared("a", m=PAIRS)], one("1"), one("2"), given=[share_of("a", m="2"), share_of("a", m="2")]
    ),
    "a default of nothing": case(
        [shared("a", m=capacity("1", default="0"))],
        one("1"),
        one("2"),
        given=[share_of("a", m="0"), share_of("a", m="0")],
    ),
    "nothing is the only valid value": case(
        [shared("a", m=capacity("1", default="0", validValues=["0"]))], one("1", m="1"), given=None
    ),
    "no capacity at all": case([shared("a")], one("1"), one("2"), given=[share_of("a"), share_of("a")]),
    "every capacity is listed": case(
        [shared("a", shares=FOUR, memory=capacity("40Gi", default="0"))],
        one("1", memory="1024Mi"),
        given=[share_of("a", shares="1", memory="1Gi")],
    ),
    "below the minimum": case([shared("a", m=PAIRS)], one("1", m="1"), given=[share_of("a", m="2")]),
    "between two steps": case([shared("a", m=PAIRS)], one("1", m="3"), given=[share_of("a", m="4")]),
    "steps of bytes": case(
        [shared("a", m=capacity("40Gi", default="1Gi", validRange={"min": "1Gi", "step": "512Mi"}))],
        one("1", m="1100Mi"),
        given=[share_of("a", m="1536Mi")],
    ),
    "a fraction between two steps": case([shared("a", m=PAIRS)], one("1", m="2100m"), given=[share_of("a", m="4")]),
    "above the maximum": case(
        [shared("a", m=capacity("10", default="2", validRange={"min": "2", "max": "4"}))], one("1", m="6"), given=None
    ),
    "a valid value": case(
        [shared("a", m=capacity("4", default="1", validValues=["1", "2"]))],
        one("1", m="2"),
        given=[share_of("a", m="2")],
    ),
    "up to a valid value": case(
        [shared("a", m=capacity("3", default="1", validValues=["1", "3"]))],
        one("1", m="2"),
        given=[share_of("a", m="3")],
    ),
    "above all valid values": case([shared("a", shares=FOUR)], one("1", shares="2"), given=None),
    "more than there is": case([shared("a", m=PLAIN)], one("1", m="3"), given=None),
    "two claims together more than there is": case(
        [shared("a", m=PAIRS)], one("1", m="2"), one("2", m="4"), given=None
    ),
    "an absent capacity": case([shared("a", m=PLAIN)], one("1", other="1"), given=None),
    "names are as published": case([shared("a", m=PLAIN)], claim("1", QUALIFIED), given=None),
    "what is left": case(
        [shared("a", m=PAIRS)], one("1", m="2"), held=[has("old", "a", {"m": "2"})], given=[share_of("a", m="2")]
    ),
    "too little is left: the next device": case(
        [shared("a", m=PAIRS), shared("b", m=PAIRS)],
        one("1", m="4"),
        held=[has("old", "a", {"m": "2"})],
        given=[share_of("b", m="4")],
    ),
    "nothing is left": case([shared("a", m=PLAIN)], one("1"), held=[has("old", "a", {"m": "2"})], given=None),
    "four of four": case(
        [shared("a", shares=FOUR)],
        one("1"),
        held=[has(name, "a", {"shares": "1"}) for name in ("x", "xx", "xxx")],
        given=[share_of("a", shares="1")],
    ),
    "five of four": case(
        [shared("a", shares=FOUR)],
        one("1"),
        held=[has(name, "a", {"shares": "1"}) for name in ("x", "xx", "xxx", "xxxx")],
        given=None,
    ),
    "one request never has two shares of a device": case(
        [shared("a", shares=FOUR)], claim("1", asks(count=2)), given=None
    ),
    "two of one request": case(
        [shared("a", shares=FOUR), shared("b", shares=FOUR)],
        claim("1", asks(count=2)),
        given=[[*share_of("a", shares="1"), *share_of("b", shares="1")]],
    ),
    "two requests of one claim": case(
        [shared("a", shares=FOUR)],
        claim("1", asks("x"), asks("y")),
        given=[[*share_of("a", "x", shares="1"), *share_of("a", "y", shares="1")]],
    ),
    "two requests on distinct devices": case(
        [
            shared("a", shares=FOUR, attributes={"uuid": {"string": "A"}}),
            shared("b", shares=FOUR, attributes={"uuid": {"string": "B"}}),
        ],
        claim("1", asks("x"), asks("y"), constraints=[{"distinctAttribute": f"{DRIVER}/uuid"}]),
        given=[[*share_of("a", "x", shares="1"), *share_of("b", "y", shares="1")]],
    ),
    "no distinct device": case(
        [shared("a", shares=FOUR, attributes={"uuid": {"string": "A"}})],
        claim("1", asks("x"), asks("y"), constraints=[{"distinctAttribute": f"{DRIVER}/uuid"}]),
        given=None,
    ),
    "taken back when the search turns": case(
        [
            shared("a", m=PLAIN, attributes={"uuid": {"string": "A"}}),
            shared("b", m=PAIRS, attributes={"uuid": {"string": "B"}}),
        ],
        claim("1", asks("x", m="2"), asks("y", m="2"), constraints=[{"matchAttribute": f"{DRIVER}/uuid"}]),
        one("2", m="2"),
        given=[[*share_of("b", "x", m="2"), *share_of("b", "y", m="2")], share_of("a", m="2")],
    ),
    "the first alternative that fits": case(
        [shared("a", m=PLAIN)],
        claim("1", {"name": "r", "firstAvailable": [option("big", m="4"), option("small", m="1")]}),
        given=[share_of("a", "r/small", m="1")],
    ),
    "all devices that have it": case(
        [shared("a", m=PLAIN), shared("b")], claim("1", asks_all(m="2")), given=[share_of("a", m="2")]
    ),
    "all devices that are large enough": case(
        [shared("a", m=PLAIN), shared("b", m=capacity("1"))], claim("1", asks_all(m="2")), given=[share_of("a", m="2")]
    ),
    "all devices, one of them used up": case(
        [shared("a", m=PLAIN), shared("b", m=PLAIN)],
        claim("1", asks_all(m="1")),
        held=[has("old", "a", {"m": "2"})],
        given=None,
    ),
    "all devices, one of them in use": case(
        [shared("a", m=PLAIN), shared("b", m=PLAIN)],
        claim("1", asks_all(m="1")),
        held=[has("old", "a", {"m": "1"})],
        given=[[*share_of("a", m="1"), *share_of("b", m="1")]],
    ),
    "a part of a whole device": case([whole("a", m=PLAIN)], one("1", m="1"), given=[[("r", "a", None)]]),
    "two parts of a whole device": case([whole("a", m=PLAIN)], one("1", m="1"), one("2", m="1"), given=None),
    "more than a whole device": case([whole("a", m=PLAIN)], one("1", m="3"), given=None),
    "the class wants whole devices": case(
        [shared("a", m=PLAIN), whole("b", m=PLAIN)], claim("1", asks("r", "whole")), given=[[("r", "b", None)]]
    ),
    "the class wants shared devices": case(
        [whole("a", m=PLAIN), shared("b", m=PLAIN)], claim("1", asks("r", "shared")), given=[share_of("b", m="2")]
    ),
    "shared since it was given whole": case(
        [shared("a", shares=FOUR)], one("1"), held=[has("old", "a", None, share=False)], given=None
    ),
    "whole since a share was given": case(
        [whole("a", m=PLAIN)], one("1"), held=[has("old", "a", {"m": "1"})], given=None
    ),
    "counters are charged with the first share": case(
        [shared("a", shares=FOUR, consumes="1")],
        one("1"),
        one("2"),
        slices="1",
        given=[share_of("a", shares="1"), share_of("a", shares="1")],
    ),
    "counters of a share in use are charged": case(
        [shared("a", shares=FOUR, consumes="1"), shared("b", memory=PLAIN, consumes="1")],
        claim("1", asks("r", DRIVER, f"'memory' in device.capacity['{DRIVER}']")),
        held=[has("old", "a", {"shares": "1"})],
        slices="1",
        given=None,
    ),
    "counters are not charged again": case(
        [shared("a", consumes="1")], one("1"), held=[has("old", "a", None)], slices="1", given=[share_of("a")]
    ),
    "beyond what steps can count": case([shared("a", m=PAIRS)], one("1", m=BEYOND), given="goes beyond"),
    "rounded beyond what steps can count": case(
        [shared("a", m=PAIRS)], one("1", m=str(2**63 - 1)), given="goes beyond"
    ),
    "beyond what steps can count, whatever the next device": case(
        [shared("a", m=PAIRS), shared("b", m=capacity(f"{BEYOND}0"))], one("1", m=BEYOND), given="goes beyond"
    ),
    "without steps any number counts": case(
        [shared("a", m=capacity(f"{BEYOND}0"))], one("1", m=BEYOND), given=[share_of("a", m=BEYOND)]
    ),
    "beyond what steps can count, and too few devices": case(
        [shared("a", m=PAIRS)], claim("1", asks(count=2, m=BEYOND)), given="goes beyond"
    ),
    "all devices, beyond what steps can count, after what does not fit": case(
        [shared("a", m=PAIRS)], claim("1", asks("x", "whole"), asks_all("y", m=BEYOND)), given="goes beyond"
    ),
    "beyond what steps can count, on a device that is never reached": case(
        [whole("a", m=capacity(f"{BEYOND}0")), shared("b", m=PAIRS)],
        claim("1", asks("x"), asks("y", m=BEYOND), constraints=[{"matchAttribute": f"{DRIVER}/absent"}]),
        given=None,
    ),
    "less than nothing": case([shared("a", m=PLAIN)], one("1", m="-1"), given="is negative"),
}


def given_by(status: Obj) -> list[Given]:
    """An allocation in the words of a case."""
    return [
        (result["request"], result["device"], result.get("consumedCapacity", {}) if result.get("shareID") else None)
        for result in status["devices"]["results"]
    ]
