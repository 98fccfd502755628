"""Rounds of pods that ask for fractions: what kube-scheduler makes of each, beside what our allocator makes of it.

The pods are for nodes without a machine behind them (``e2e.kit.ghost``), so that nothing runs: a pod that was scheduled
is bound, its claims are allocated, and no kubelet does anything about it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from dra_driver.allocator.allocate import Allocator, Snapshot
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import allocation_results, parse_claim
from dra_driver.allocator.reasons import Failure
from dra_driver.allocator.status import allocation_status
from dra_driver.devices.shares import COMPUTE, MEMORY
from dra_driver.kube.interface import DEVICE_CLASSES, Obj
from dra_driver.quantity import Quantity
from e2e.kit.fraction_requests import Offer, random_pod
from e2e.kit.pools import driver_slices
from e2e.kit.space import Space
from e2e.kit.waiting import NotYet, TimedOut, eventually
from e2e.kit.workloads import Use, pod

_DECIDED_SECONDS = 20.0
_GONE_SECONDS = 30.0
_POLL_SECONDS = 0.05
_MOST_PODS = 6

Given = Mapping[str, object]
"""By claim what it has; or under "" the word for why the pod cannot be scheduled."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A pod and its claims, as the server has them."""

    pod: str
    claims: tuple[Obj, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each["metadata"]["name"] for each in self.claims)


@dataclass(slots=True)
class Stream:
    """What happens on one node."""

    node: str
    offer: Offer
    slices: list[Obj]
    holding: list[Asked] = field(default_factory=list)


class Rounds:
    """In each, every node gets one more pod, after some of those before have ended. ``random`` decides everything."""

    def __init__(self, space: Space, streams: Sequence[Stream], random: Random) -> None:
        self._space = space
        self.streams = streams
        self._random = random
        self._engine = CelEngine()
        self._classes = space.api.list(DEVICE_CLASSES).items
        self._number = 0
        self.given = self.refused = 0

    def play(self) -> list[str]:
        """One round. Returns where the two differ, a sentence each."""
        self._forget_refused()
        self._end()
        asked = {stream.node: self._ask(stream) for stream in self.streams}
        claims = self._space.claims()
        expected = {stream.node: self._ours(stream, asked[stream.node], claims) for stream in self.streams}
        found = self._decided(asked, expected)
        differences = []
        for stream in self.streams:
            ours, theirs = expected[stream.node], found[stream.node]
            if ours != theirs:
                specs = [each["spec"]["devices"]["requests"] for each in asked[stream.node].claims]
                differences.append(f"{stream.node}: asked {specs}: kube-scheduler says {theirs}, we say {ours}")
            if "" in theirs:
                self.refused += 1
                self._delete([asked[stream.node]])
            else:
                self.given += 1
                stream.holding.append(asked[stream.node])
        return differences

    def close(self) -> None:
        """Nothing would ever end a pod on such a node."""
        self._delete([each for stream in self.streams for each in stream.holding])
        self._space.start_deleting(*self._space.pods(), grace=0)

    # -- one round ---------------------------------------------------------------------------------------------------

    def _forget_refused(self) -> None:
        """Until the scheduler knows that pods which it could not place are gone: it would try them again when others
        end, and what it has in mind for them is not free meanwhile. It learns of pods in order and places one after
        the other, so it has come to that when it has placed one more."""
        self._number += 1
        name = f"p{self._number}-after-all"
        self._space.pod(_tolerant(pod(name, node=self.streams[0].node, grace=0)))
        eventually(lambda: self._check_placed(name), _DECIDED_SECONDS, poll=_POLL_SECONDS)
        self._space.start_deleting(name, grace=0)

    def _end(self) -> None:
        ended: list[Asked] = []
        for stream in self.streams:
            while len(stream.holding) > _MOST_PODS or (stream.holding and self._random.random() < 0.4):
                ended.append(stream.holding.pop(self._random.randrange(len(stream.holding))))
        self._delete(ended)
        # New claims come after the end of the old ones in the scheduler's watch as well, so it knows what is free.
        names = {name for each in ended for name in each.names}
        eventually(lambda: self._check_gone(names), _GONE_SECONDS, poll=_POLL_SECONDS)

    def _delete(self, ended: Sequence[Asked]) -> None:
        for each in ended:
            self._space.start_deleting(each.pod, grace=0)
            for name in each.names:
                self._space.delete_claim(name)

    def _ask(self, stream: Stream) -> Asked:
        self._number += 1
        name = f"p{self._number}"
        specs = random_pod(self._random, stream.offer)
        claims = tuple(self._space.claim(f"{name}-{number}", spec) for number, spec in enumerate(specs))
        uses = [Use(claim=each["metadata"]["name"], entry=f"c{number}") for number, each in enumerate(claims)]
        self._space.pod(_tolerant(pod(name, *uses, node=stream.node, grace=0)))
        return Asked(name, claims)

    def _ours(self, stream: Stream, asked: Asked, claims: Mapping[str, Obj]) -> Given:
        held = [claims[name] for each in stream.holding for name in each.names]
        allocator = Allocator(self._engine, Snapshot.from_objects(stream.slices, self._classes, held))
        outcome = allocator.allocate(Node(stream.node), [parse_claim(each) for each in asked.claims])
        if isinstance(outcome, Failure):
            return {"": "SchedulerError" if outcome.fatal else "Unschedulable"}
        statuses = [{"allocation": allocation_status(each, stream.node, "", lambda: "made")} for each in outcome]
        return {name: _results({"status": status}) for name, status in zip(asked.names, statuses, strict=True)}

    def _decided(self, asked: Mapping[str, Asked], expected: Mapping[str, Given]) -> Mapping[str, Given]:
        """The scheduler may change its mind about a pod that it could not place, so only what we say too is final."""
        found: dict[str, Given] = {}

        def look() -> None:
            pods, claims = self._space.pods(), self._space.claims()
            for node, each in asked.items():
                found[node] = _given(pods[each.pod], [claims[name] for name in each.names])
            open_still = [node for node in asked if "" in found[node] and found[node] != expected[node]]
            if open_still:
                raise NotYet(f"no answer for {open_still}")

        with contextlib.suppress(TimedOut):  # what is there then is what differs
            eventually(look, _DECIDED_SECONDS, poll=_POLL_SECONDS)
        return found

    def _check_placed(self, name: str) -> None:
        if not self._space.pods()[name]["spec"].get("nodeName"):
            raise NotYet(f"pod {name} is not placed")

    def _check_gone(self, names: set[str]) -> None:
        if left := names & self._space.claims().keys():
            raise NotYet(f"claims are still there: {', '.join(sorted(left))}")


def stream_of(space: Space, node: str, *, memory_step: int, compute_step: int) -> Stream:
    """The node as it is published now."""
    slices = driver_slices(space.api, node)
    devices = [each for entry in slices for each in entry["spec"].get("devices") or ()]
    whole = [each for each in devices if COMPUTE in (each.get("capacity") or {})]
    profiles = {each["attributes"]["profile"]["string"] for each in devices if "profile" in each["attributes"]}
    memory = Quantity.parse(whole[0]["capacity"][MEMORY]["value"]).value()
    offer = Offer(memory, memory_step, compute_step, len(whole), tuple(sorted(profiles)))
    return Stream(node, offer, slices)


def _tolerant(body: Obj) -> Obj:
    return {**body, "spec": {**body["spec"], "tolerations": [{"operator": "Exists"}]}}


def _given(pod: Obj, claims: Sequence[Obj]) -> Given:
    if pod["spec"].get("nodeName"):
        return {each["metadata"]["name"]: _results(each) for each in claims}
    conditions = (pod.get("status") or {}).get("conditions") or ()
    refused = (each for each in conditions if each["type"] == "PodScheduled" and each["status"] == "False")
    return {"": next((each["reason"] for each in refused), "nothing")}


def _results(claim: Obj) -> list[Obj]:
    """Without the ids of shares, which nobody can foresee."""
    return [{**each, "shareID": "made"} if "shareID" in each else each for each in allocation_results(claim)]
