"""What is true of fractions, said once more and in other words than the allocator's, on the objects of the API.

How much a request takes is written after the comments of ``CapacityRequirements``, ``DeviceCapacity``,
``CapacityRequestPolicy`` and ``CapacityRequestPolicyRange`` (k8s.io/api/resource/v1/types.go) and after
k8s.io/dynamic-resource-allocation/structured, consumable_capacity.go. Numbers are exact fractions; nothing of the
allocator or of its quantities is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations

from dra_driver.devices.naming import MigName, read_name
from dra_driver.hardware.model import Machine
from dra_driver.kube.interface import Obj
from e2e.kit.fraction_requests import FRACTION_CLASS
from e2e.kit.workloads import GPU_CLASS, MIG_CLASS, is_profile

Amounts = Mapping[str, Fraction]
Demand = tuple[str, Obj]
"""The name that results have, and ``exactly`` or one alternative."""

_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_FORM = re.compile(r"([-+]?[0-9.]+)(?:[eE]([-+]?[0-9]+)|([A-Za-z]*))")
_NANO = Fraction(1, 10**9)


def number(text: str) -> Fraction:
    """A quantity as the API server reads it: what is finer than a billionth is rounded up."""
    found = _FORM.fullmatch(text)
    assert found is not None, text
    mantissa, exponent, suffix = Fraction(f"0{found[1]}" if found[1][0] == "." else found[1]), found[2], found[3]
    if exponent is not None:
        value = mantissa * Fraction(10) ** int(exponent)
    elif suffix in _BINARY:
        value = mantissa * 2 ** _BINARY[suffix]
    else:
        value = mantissa * Fraction(10) ** _POWERS[suffix]
    return -(-value // _NANO) * _NANO


def taken(device: Obj, asked: Mapping[str, str]) -> Amounts | None:
    """What a request takes of every capacity of a published device; None where the device is not for it."""
    capacities: Mapping[str, Obj] = device.get("capacity") or {}
    if not asked.keys() <= capacities.keys():
        return None  # something is asked of which this device has nothing
    amounts = {name: _amount(capacity, asked.get(name)) for name, capacity in capacities.items()}
    if any(amount is None for amount in amounts.values()):
        return None
    return {name: amount for name, amount in amounts.items() if amount is not None}


def _amount(capacity: Obj, asked: str | None) -> Fraction | None:
    value, policy = number(capacity["value"]), capacity.get("requestPolicy")
    if policy is None:
        amount = value if asked is None else number(asked)
    elif asked is None:
        amount = number(policy["default"])
    else:
        amount = _stepped(policy["validRange"], number(asked))
        if amount > number(policy["validRange"]["max"]):
            return None
    return amount if amount <= value else None


def _stepped(valid: Obj, wanted: Fraction) -> Fraction:
    """The least of min, min + step, min + 2 steps, ... that is enough."""
    minimum, step = number(valid["min"]), number(valid["step"])
    if wanted <= minimum:
        return minimum
    above = (wanted - minimum) / step
    whole = above.numerator // above.denominator
    return minimum + step * (whole if whole == above else whole + 1)


def is_for(demand: Obj, device: Obj) -> bool:
    """Class and selector, as far as ``fraction_requests`` writes them."""
    attributes = device["attributes"]
    kind = attributes["type"]["string"]
    in_class = {
        GPU_CLASS: kind == "gpu",
        FRACTION_CLASS: kind == "gpu" and "sharingBackend" in attributes,
        MIG_CLASS: kind == "mig",
    }[demand["deviceClassName"]]
    profile = str((attributes.get("profile") or {}).get("string"))
    return in_class and all(each["cel"]["expression"] == is_profile(profile) for each in demand.get("selectors") or ())


def demands(claim: Obj) -> Iterator[Sequence[Demand]]:
    """Of each request of a claim the ways to satisfy it."""
    for request in claim["spec"]["devices"]["requests"]:
        if "exactly" in request:
            yield [(request["name"], request["exactly"])]
        else:
            yield [(f"{request['name']}/{each['name']}", each) for each in request["firstAvailable"]]


def asked_of(demand: Obj) -> Mapping[str, str]:
    requests: Mapping[str, str] = (demand.get("capacity") or {}).get("requests") or {}
    return requests


def results_of(claim: Obj) -> list[Obj]:
    results: list[Obj] = claim["status"]["allocation"]["devices"]["results"]
    return results


class Ledger:
    """What of one node's devices is held. ``slices``: as they are published."""

    def __init__(self, machine: Machine, slices: Iterable[Obj]) -> None:
        self._machine = machine
        specs = [entry["spec"] for entry in slices]
        self._devices = {each["name"]: each for spec in specs for each in spec.get("devices") or ()}
        self._counters = {each["name"]: each["counters"] for spec in specs for each in spec.get("sharedCounters") or ()}
        self._held: list[tuple[str, Amounts | None]] = []  # None: the whole device

    def charge(self, claims: Iterable[Obj]) -> None:
        for claim in claims:
            for result in results_of(claim):
                consumed = {name: number(text) for name, text in (result.get("consumedCapacity") or {}).items()}
                self._held.append((result["device"], consumed if "shareID" in result else None))

    def problems(self) -> list[str]:
        """Where more is held than there is."""
        found = [f"{name}: {text}" for name in self._names() for text in self._too_much(name)]
        pairs = combinations(sorted(self._names()), 2)
        overlaps = [f"{one} and {other} are on the same hardware" for one, other in pairs if self._overlap(one, other)]
        return found + overlaps + list(self._overdrawn())

    def can_have(self, wanted: Sequence[Sequence[Demand]], *, tries: int) -> bool | None:
        """Whether there is any choice of devices for all requests; None where there are more than ``tries`` choices."""
        self._tries = tries
        try:
            return self._satisfy(list(wanted))
        except _TooManyError:
            return None

    def _satisfy(self, wanted: list[Sequence[Demand]]) -> bool:
        if not wanted:
            return True
        for _name, demand in wanted[0]:
            for chosen in self._choices(demand):
                self._tries -= 1
                if self._tries < 0:
                    raise _TooManyError
                before = len(self._held)
                self._held += chosen
                if not self.problems() and self._satisfy(wanted[1:]):
                    return True
                del self._held[before:]
        return False

    def _choices(self, demand: Obj) -> Iterator[list[tuple[str, Amounts | None]]]:
        fitting: list[tuple[str, Amounts | None]] = []
        for name, device in self._devices.items():
            amounts = taken(device, asked_of(demand)) if is_for(demand, device) else None
            if amounts is not None:
                fitting.append((name, amounts if device.get("allowMultipleAllocations") else None))
        if demand.get("allocationMode") == "All":
            return iter([fitting] if fitting else [])
        return map(list, combinations(fitting, demand.get("count", 1)))

    def _names(self) -> set[str]:
        return {name for name, _amounts in self._held}

    def _too_much(self, name: str) -> Iterator[str]:
        holders = [amounts for held, amounts in self._held if held == name]
        if None in holders and len(holders) > 1:
            yield f"somebody has all of it, and it has {len(holders)} holders"
        for capacity, published in self._devices[name]["capacity"].items():
            total = sum((amounts[capacity] for amounts in holders if amounts is not None), start=Fraction(0))
            if total > number(published["value"]):
                yield f"{total} of {capacity} are held of {published['value']}"

    def _overdrawn(self) -> Iterator[str]:
        """Of engines and multiprocessors, which have no place on a GPU. A device draws once, however many share it."""
        drawn: dict[tuple[str, str], Fraction] = {}
        for name in self._names():
            for use in self._devices[name].get("consumesCounters") or ():
                for counter, drawing in use["counters"].items():
                    key = (use["counterSet"], counter)
                    drawn[key] = drawn.get(key, Fraction(0)) + number(drawing["value"])
        for (counter_set, counter), total in drawn.items():
            there = self._counters[counter_set][counter]["value"]
            if total > number(there):
                yield f"{total} of {counter} are drawn from {counter_set}, which has {there}"

    def _overlap(self, one: str, other: str) -> bool:
        """By what the GPU says of placements of its profiles, not by the counters that are published."""
        mine, theirs = read_name(one), read_name(other)
        assert mine is not None
        assert theirs is not None
        if mine.minor != theirs.minor:
            return False
        if not (isinstance(mine, MigName) and isinstance(theirs, MigName)):
            return True
        return bool(self._slices(mine) & self._slices(theirs))

    def _slices(self, name: MigName) -> set[int]:
        (gpu,) = (gpu for gpu in self._machine.gpus if gpu.minor == name.minor)
        profile = gpu.mig.profile(name.profile_id) if gpu.mig else None
        assert profile is not None
        (size,) = {placement.size for placement in profile.placements if placement.start == name.start}
        return set(range(name.start, name.start + size))


class _TooManyError(Exception):
    """There are too many choices to try all."""
