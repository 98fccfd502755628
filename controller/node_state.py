"""What the controller remembers of one node between two looks at it. Everything here may be lost in a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.challenge import ChallengeState
from controller.own_writes import OwnWrites, is_older
from controller.problem import Problem, Told
from controller.reorder_pace import ReorderPace
from dra_driver.devices.model import AllocatableDevice, CounterSet, DeviceSet
from dra_driver.kube.backoff import TokenBucket
from dra_driver.kube.interface import Obj

_REMEMBERED_DEVICES = 1024  # 16 GPUs with all of their MIG devices are 624

# Two writers that undo each other (a webhook, a second driver of the same name) must not do so at full speed.
WRITE_RATE = 0.2
WRITE_BURST = 20


@dataclass(slots=True)
class NodeState:
    """``challenge`` and ``highest_generation`` are also changed by the watch: under ``lock``. The rest belongs to the
    worker that has the node's key."""

    own: OwnWrites
    budget: TokenBucket
    lock: threading.Lock = field(default_factory=threading.Lock)
    challenge: ChallengeState = field(default_factory=ChallengeState)
    highest_generation: int = 0
    reorder_pace: ReorderPace = field(default_factory=ReorderPace)
    remembered: DeviceSet = field(default_factory=DeviceSet)  # devices that claims hold, or that left the pool
    problems: tuple[Problem, ...] = ()
    told: dict[str, Told] = field(default_factory=dict)  # conditions by type, as last written by this process
    inventory: Obj | None = None  # the answer to our own last write, until the watch shows it or a newer one
    devices: int | None = None  # in the pool when it was last found to be as desired; None while it is not

    def saw_generation(self, generation: int) -> None:
        with self.lock:
            self.highest_generation = max(self.highest_generation, generation)

    def newest(self, inventory: Obj) -> Obj:
        """``inventory``, as the watch has it, or the answer to our own write where that is newer."""
        ours, theirs = self.inventory, inventory["metadata"]
        if ours is None or ours["metadata"].get("uid") != theirs.get("uid") or not is_older(theirs, ours["metadata"]):
            self.inventory = None
            return inventory
        return ours

    def known_devices(self, published: DeviceSet) -> DeviceSet:
        """``published``, and what is remembered of devices and counter sets that are not in it (after a wipe)."""
        devices = {device.name for device in published.devices}
        sets = {counter_set.name for counter_set in published.counter_sets}
        return DeviceSet(
            published.devices + tuple(device for device in self.remembered.devices if device.name not in devices),
            published.counter_sets + tuple(found for found in self.remembered.counter_sets if found.name not in sets),
        )

    def remember(self, known: DeviceSet, desired: DeviceSet, in_use: frozenset[str]) -> None:
        """Keep what may be needed later: devices in use, and those that leave the pool (a claim may be on its way)."""
        kept: dict[str, AllocatableDevice] = {
            device.name: device for device in desired.devices if device.name in in_use
        }
        offered = {device.name for device in desired.devices}
        kept |= {device.name: device for device in known.devices if device.name not in offered}
        devices = tuple(kept.values())[:_REMEMBERED_DEVICES]
        needed = {consumption.counter_set for device in devices for consumption in device.consumes}
        sets: dict[str, CounterSet] = {found.name: found for found in (*known.counter_sets, *desired.counter_sets)}
        self.remembered = DeviceSet(devices, tuple(found for name, found in sets.items() if name in needed))


class NodeStates:
    """The states by node name; thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, NodeState] = {}

    def of(self, name: str) -> NodeState:
        with self._lock:
            state = self._states.get(name)
            if state is None:
                state = self._states[name] = NodeState(
                    own=OwnWrites(clock=self._clock), budget=TokenBucket(WRITE_RATE, WRITE_BURST, clock=self._clock)
                )
            return state

    def forget(self, name: str) -> None:
        with self._lock:
            self._states.pop(name, None)

    def all(self) -> list[NodeState]:
        with self._lock:
            return list(self._states.values())
