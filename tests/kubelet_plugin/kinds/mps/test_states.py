"""Dead and stuck daemons: who is told, in which words, and what becomes of the devices that the controller is told of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dra_driver.errors import StateError
from dra_driver.hardware.model import Machine, UnhealthyMps
from dra_driver.mps.group import GroupState, GroupStatus, MpsGroup
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.kinds.mps.events import DaemonEvents
from kubelet_plugin.kinds.mps.states import GroupStates, Unhealthy
from kubelet_plugin.kinds.mps.step import MPS_GROUP
from kubelet_plugin.kinds.mps.told import ToldHardware
from kubelet_plugin.prepare.engine import PrepareEngine
from kubelet_plugin.telling.failures import FailureEvent
from tests.kubelet_plugin.kinds.mps.claims import mig_mps, mps
from tests.kubelet_plugin.prepare.calls import prepare
from tests.kubelet_plugin.prepare.node import claim, entry, machine, result
from tests.kubelet_plugin.prepare.simulated_node import SimulatedNode

MIG = "gpu-1-mig-1g10gb-19-0"


def status(group: str, state: GroupState, *devices: str, message: str = "it was killed") -> GroupStatus:
    return GroupStatus(MpsGroup(group, devices), state, "" if state is GroupState.READY else message)


def in_group(uid: str, group: str) -> ClaimEntry:
    made = entry(uid)
    return replace(made, steps=(StepRecord(MPS_GROUP, {"group": group}), *made.steps))


@dataclass
class Events:
    told: list[tuple[ClaimRef, FailureEvent]] = field(default_factory=list)

    def tell(self, claim: ClaimRef, event: FailureEvent) -> None:
        self.told.append((claim, event))


# -- what is known -----------------------------------------------------------------------------------------------------


def test_only_changes_of_health_are_told() -> None:
    states, seen = GroupStates(), list[tuple[Unhealthy, Unhealthy]]()
    states.on_change(lambda before, now: seen.append((before, now)))
    dead = status("a", GroupState.DEAD)
    for groups in ((), (status("a", GroupState.READY),), (dead,), (replace(dead, clients=3),), ()):
        states.told(groups)
    assert [(set(before), set(now)) for before, now in seen] == [(set(), {"a"}), ({"a"}, set())]


def test_trouble_says_what_and_why() -> None:
    states = GroupStates()
    states.told((status("a", GroupState.DEAD), status("b", GroupState.WEDGED, message="a canary hangs")))
    assert states.trouble("a") == (
        "the MPS daemon of group a is dead (it was killed): its clients are lost and new ones find nobody; delete the "
        "pods that use it"
    )
    assert "is wedged (a canary hangs): new clients would hang" in states.trouble("b")
    assert states.trouble("c") == ""


# -- whom it concerns --------------------------------------------------------------------------------------------------


def test_the_claims_of_a_group_are_told_once_for_each_state() -> None:
    events, states = Events(), GroupStates()
    entries = {uid: in_group(uid, group) for uid, group in (("u1", "a"), ("u2", "a"), ("u3", "b"))}
    states.on_change(DaemonEvents(events, lambda: entries).changed)
    wedged, dead = status("a", GroupState.WEDGED), status("a", GroupState.DEAD)
    for groups in ((wedged,), (wedged, status("b", GroupState.READY)), (dead,), ()):
        states.told(groups)
    assert [(ref.uid, event.reason) for ref, event in events.told] == [
        ("u1", "MpsDaemonWedged"),
        ("u2", "MpsDaemonWedged"),
        ("u1", "MpsDaemonDied"),
        ("u2", "MpsDaemonDied"),
    ]
    assert events.told[-1][1].message.startswith("the MPS daemon of group a is dead (it was killed)")


def test_without_a_checkpoint_nobody_is_told() -> None:
    def unreadable() -> dict[str, ClaimEntry]:
        raise StateError("the checkpoint cannot be read")

    events, states = Events(), GroupStates()
    states.on_change(DaemonEvents(events, unreadable).changed)
    states.told((status("a", GroupState.DEAD),))
    assert events.told == []
    assert states.trouble("a") != ""


def test_a_held_device_has_the_trouble_of_its_group(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.supervisor.watch(node.mps_states.told)
    node.claims.add(claim("u1", result("gpu-0", "a"), result("gpu-2", "b"), configs=[mps(["a"])]))
    node.claims.add(claim("u2", result(MIG), configs=[mig_mps()]))
    for uid in ("u1", "u2"):
        prepare(engine, uid)
    kinds, entries = node.kinds(), engine.entries()

    def troubles() -> dict[str, str]:
        held = [(each, entry) for entry in entries.values() for each in entry.devices]
        found = {each.prepared.device_name: _trouble(each, entry) for each, entry in held}
        return {name: what for name, what in found.items() if what}

    def _trouble(held: HeldDevice, entry: ClaimEntry) -> str:
        return kinds.trouble(held, entry, node.hardware.read_machine())

    assert troubles() == {}
    for uid, device in (("u1", "gpu-0"), ("u2", MIG)):
        group = entries[uid].steps[-2].arguments["group"]
        node.supervisor.become(group, GroupState.DEAD)
        assert f"the MPS daemon of group {group} is dead" in troubles().pop(device)
        node.supervisor.become(group, GroupState.READY)
    assert troubles() == {}


# -- what the controller is told ---------------------------------------------------------------------------------------


class Source:
    def __init__(self, machine: Machine | None) -> None:
        self.state = HardwareState(True, machine)
        self.listener: Callable[[], None] = lambda: None
        self.reader: Callable[[], None] = lambda: None

    def on_change(self, listener: Callable[[], None]) -> None:
        self.listener = listener

    def on_reading(self, listener: Callable[[], None]) -> None:
        self.reader = listener


def test_devices_of_unhealthy_groups_are_told_until_they_are_well() -> None:
    source, states, changes = Source(machine(2)), GroupStates(), list[int]()
    told = ToldHardware(source, source, states)
    told.on_change(lambda: changes.append(1))
    assert told.state is source.state
    states.told((status("a", GroupState.WEDGED, "GPU-1", "GPU-gone"),))
    assert told.state.machine is not None
    (first, second) = told.state.machine.gpus
    assert first.mps_unhealthy == ()
    (unhealthy,) = second.mps_unhealthy
    assert unhealthy.device == "gpu-1"
    assert "is wedged (it was killed)" in unhealthy.message
    source.reader()
    changes.pop()
    states.told(())
    assert told.state is source.state
    source.listener()
    source.reader()
    assert len(changes) == 3, "a reading while all is well is nothing"
    source.state = HardwareState(True, None, "away")
    states.told((status("a", GroupState.DEAD, "GPU-1"),))
    assert told.state is source.state


def test_a_mig_device_is_told_by_its_name(node: SimulatedNode, engine: PrepareEngine) -> None:
    node.claims.add(claim("u1", result(MIG), configs=[mig_mps()]))
    prepare(engine, "u1")
    (found,) = node.supervisor.now()
    node.mps_states.told((replace(found, state=GroupState.DEAD),))
    read = node.hardware.read_machine()
    told = ToldHardware(Source(node.machine), Source(read), node.mps_states).state.machine
    assert told is not None
    message = node.mps_states.trouble(found.group.id)
    assert [gpu.mps_unhealthy for gpu in told.gpus] == [(), (UnhealthyMps(MIG, message),), ()]
    assert told.gpus[1].mig == node.machine.gpus[1].mig, "of the MIG device itself nothing is told"
