"""The NodeInventory is made, kept true with as few writes as possible, and challenges are answered in time only."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.node_inventory import MIG_LAYOUT_APPLIED, Condition
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.kube.interface import NODE_INVENTORIES, NODES, NotFound, Obj, Unavailable
from dra_driver.simulation.kubelet.kubelet import ensure_node
from dra_driver.simulation.store import EmbeddedApi
from kubelet_plugin.endpoint.connection import RegistrationState
from kubelet_plugin.hardware.watch import HardwareState
from kubelet_plugin.inventory.status import PluginInstance
from kubelet_plugin.inventory.writer import InventoryWriter, Timing
from tests.kubelet_plugin.fakes import NODE, eventually

GPU = Gpu(0, 0, "GPU-0", "NVIDIA T4", "Nvidia", "Turing", "7.5", "0000:01:00.0", memory_bytes=16 << 30)
MACHINE = Machine("580.105.08", 13000, (GPU,))
READ = HardwareState(True, MACHINE)
# Long enough that only the tests about it see its end.
TIMING = Timing(grace=60, answer_poll=0.02, first_reading=60)


class Hardware:
    def __init__(self, state: HardwareState = READ) -> None:
        self.state = state
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def change(self, state: HardwareState) -> None:
        self.state = state
        for listener in self._listeners:
            listener()


class Connection:
    def __init__(self) -> None:
        self.state = RegistrationState()
        self.open = False
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def alive(self) -> bool:
        return self.open and self.state.registered

    def register(self) -> None:
        self.state = RegistrationState(self.state.registrations + 1, True)
        self.open = True
        self._tell()

    def refuse(self, text: str) -> None:
        self.state = RegistrationState(0, False, self.state.refusals + 1, text)
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


class Layouts:
    """Named MIG layouts: ``result`` None means none is asked for."""

    def __init__(self, *, pending: bool = False, result: str | None = None) -> None:
        self.pending = pending
        self.result = result
        self._listeners: list[Callable[[], None]] = []

    def condition(self) -> Condition | None:
        if self.result is None:
            return None
        return Condition(type=MIG_LAYOUT_APPLIED, status="False", reason=self.result)

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def end(self, result: str | None) -> None:
        self.pending, self.result = False, result
        for listener in self._listeners:
            listener()


class Api(EmbeddedApi):
    """Counts writes to NodeInventories and fails on wish."""

    def __init__(self) -> None:
        super().__init__()
        self.patches: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self.before_patch: list[Callable[[], object]] = []
        self._patched = threading.Event()

    def patch(self, *args: Any, **kwargs: Any) -> Obj:
        if args[0] == NODE_INVENTORIES:
            self.patches.append(args[2])
            self._patched.set()
            if self.failures:
                raise self.failures.pop()
            if self.before_patch:
                self.before_patch.pop()()
        return super().patch(*args, **kwargs)

    def stays_quiet(self) -> bool:
        """Nobody patches a NodeInventory for a while."""
        self._patched.clear()
        return not self._patched.wait(0.1)


class Instance:
    """One writer with its hardware and kubelet connection."""

    def __init__(
        self,
        api: Api,
        name: str,
        timing: Timing = TIMING,
        hardware: HardwareState = READ,
        layouts: Layouts | None = None,
    ) -> None:
        self.hardware = Hardware(hardware)
        self.layouts = layouts or Layouts()
        self.connection = Connection()
        self.seen: Obj = {}
        self.writer = InventoryWriter(
            api,
            NODE,
            PluginInstance(name, "1.0"),
            self.hardware,
            self.connection,
            registry="/r",
            layouts=self.layouts,
            reader=self,
            timing=timing,
        )
        self.writer.start()

    def saw(self, inventory: Obj) -> None:
        self.seen = inventory

    def stop(self) -> None:
        self.writer.stop()


class Lab:
    def __init__(self) -> None:
        self.api = Api()
        ensure_node(self.api, NODE)
        self._instances: list[Instance] = []

    def instance(
        self,
        name: str = "pod-1",
        timing: Timing = TIMING,
        hardware: HardwareState = READ,
        layouts: Layouts | None = None,
    ) -> Instance:
        instance = Instance(self.api, name, timing, hardware, layouts)
        self._instances.append(instance)
        return instance

    def close(self) -> None:
        for instance in self._instances:
            instance.stop()

    def inventory(self) -> Obj:
        try:
            return self.api.get(NODE_INVENTORIES, NODE)
        except NotFound:
            return {}

    def status(self) -> dict[str, Any]:
        return self.inventory().get("status") or {}

    def registration(self) -> dict[str, Any]:
        return self.status().get("registration") or {}

    def is_written_by(self, name: str) -> bool:
        """Whether the instance ``name`` has told that the kubelet registered it: only then has it noticed that itself."""
        registration = self.registration()
        return bool(registration.get("pluginInstance") == name and registration.get("registered"))

    def condition(self, kind: str) -> dict[str, Any]:
        return next((entry for entry in self.status().get("conditions", ()) if entry["type"] == kind), {})

    def challenge(self, text: str) -> None:
        EmbeddedApi.patch(self.api, NODE_INVENTORIES, NODE, {"spec": {"challenge": text}})


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def test_the_object_is_made_for_the_node_and_filled(lab: Lab) -> None:
    instance = lab.instance()
    instance.connection.register()
    eventually(lambda: lab.registration().get("registered"))
    inventory = lab.inventory()
    (owner,) = inventory["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Node", lab.api.get(NODES, NODE)["metadata"]["uid"])
    assert inventory["status"]["machine"]["gpus"][0]["uuid"] == "GPU-0"
    assert lab.registration()["pluginInstance"] == "pod-1"
    assert lab.condition("HardwareReady")["status"] == "True"
    assert lab.condition("KubeletRegistered")["status"] == "True"
    assert "answer" not in inventory["status"]
    assert len(lab.api.patches) <= 2


def test_without_changes_nothing_is_written(lab: Lab) -> None:
    instance = lab.instance()
    instance.connection.register()
    eventually(lambda: lab.registration().get("registered"))
    before = len(lab.api.patches)
    for _ in range(5):
        instance.hardware.change(dataclasses.replace(READ))  # read again, the same
    assert lab.api.stays_quiet()
    assert len(lab.api.patches) == before


def test_a_restart_of_the_same_pod_writes_nothing(lab: Lab) -> None:
    first = lab.instance()
    first.connection.register()
    eventually(lambda: lab.registration().get("registered"))
    first.stop()
    writes, version = len(lab.api.patches), lab.inventory()["metadata"]["resourceVersion"]
    second = lab.instance()
    assert second.writer.written.wait(5)
    second.connection.register()
    assert lab.api.stays_quiet()
    assert len(lab.api.patches) == writes
    assert lab.inventory()["metadata"]["resourceVersion"] == version


def test_a_new_pod_takes_over_with_one_write(lab: Lab) -> None:
    first = lab.instance("old")
    first.connection.register()
    eventually(lambda: lab.registration().get("registered"))
    first.stop()
    writes = len(lab.api.patches)
    second = lab.instance("new")
    second.connection.register()
    eventually(lambda: lab.is_written_by("new"))
    assert len(lab.api.patches) == writes + 1
    assert set(lab.api.patches[-1]["status"]) == {"registration"}


def test_two_instances_do_not_write_in_turns(lab: Lab) -> None:
    old = lab.instance("old")
    old.connection.register()
    eventually(lambda: lab.is_written_by("old"))
    newer = HardwareState(True, dataclasses.replace(MACHINE, driver_version="590.1"))
    new = lab.instance("new", hardware=newer)
    assert new.writer.written.wait(5)
    assert lab.status()["machine"]["driverVersion"] == "580.105.08"  # not the new one's turn yet
    new.connection.register()
    eventually(lambda: lab.is_written_by("new"))
    assert lab.status()["machine"]["driverVersion"] == "590.1"
    eventually(lambda: old.seen == lab.inventory())
    writes = len(lab.api.patches)
    old.hardware.change(HardwareState(True, MACHINE, "a problem that only the old one has"))
    assert lab.api.stays_quiet()
    assert len(lab.api.patches) == writes
    new.stop()
    old.connection.register()  # the kubelet restarted: the old one is all there is
    eventually(lambda: lab.is_written_by("old"))


def test_a_challenge_is_answered_only_while_the_kubelet_is_connected(lab: Lab) -> None:
    instance = lab.instance()
    eventually(lambda: lab.status().get("machine"))
    lab.challenge("one")
    assert lab.api.stays_quiet()
    assert "answer" not in lab.status()
    instance.connection.register()
    eventually(lambda: lab.status().get("answer") == "one")
    instance.connection.open = False
    lab.challenge("two")
    assert lab.api.stays_quiet()
    assert lab.status()["answer"] == "one"
    instance.connection.open = True  # nobody tells: it is looked at again and again
    eventually(lambda: lab.status()["answer"] == "two")


def test_a_superseded_instance_that_is_connected_answers_too(lab: Lab) -> None:
    old, new = lab.instance("old"), lab.instance("new")
    old.connection.register()
    eventually(lambda: lab.is_written_by("old"))
    new.connection.register()
    eventually(lambda: lab.is_written_by("new"))
    new.connection.open = False
    lab.challenge("who is there")
    eventually(lambda: lab.status().get("answer") == "who is there")
    assert lab.registration()["pluginInstance"] == "new"


def test_a_status_is_never_half_of_each_of_two_instances(lab: Lab) -> None:
    new = lab.instance("new")
    eventually(lambda: lab.status().get("machine"))
    other = {"status": {"registration": {"pluginInstance": "old", "registered": True, "registrations": 7}}}
    lab.api.before_patch.append(lambda: EmbeddedApi.patch(lab.api, NODE_INVENTORIES, NODE, other, subresource="status"))
    new.connection.register()
    eventually(lambda: lab.registration()["registrations"] == 1)
    assert lab.registration()["pluginInstance"] == "new"


def test_hardware_that_cannot_be_read_is_said_and_mended(lab: Lab) -> None:
    instance = lab.instance(hardware=HardwareState(True, None, "no libnvidia-ml.so.1 under driver root /x"))
    eventually(lambda: lab.condition("HardwareReady").get("status") == "False")
    assert "machine" not in lab.status()
    assert "no libnvidia-ml.so.1 under driver root /x" in lab.condition("HardwareReady")["message"]
    instance.hardware.change(READ)
    eventually(lambda: lab.condition("HardwareReady")["status"] == "True")
    instance.hardware.change(HardwareState(True, None, "driver unloaded"))
    eventually(lambda: "machine" not in lab.status())


def test_after_a_restart_a_failed_reading_withdraws_nothing_until_it_is_final(lab: Lab) -> None:
    first = lab.instance()
    eventually(lambda: lab.condition("HardwareReady").get("status") == "True")
    machine = lab.status()["machine"]
    first.stop()
    second = lab.instance(hardware=HardwareState(True, None, "NVML said 999", tentative=True))
    eventually(lambda: lab.condition("HardwareReady")["status"] == "False")
    assert "NVML said 999" in lab.condition("HardwareReady")["message"]
    assert lab.status()["machine"] == machine
    second.hardware.change(READ)
    eventually(lambda: lab.condition("HardwareReady")["status"] == "True")
    second.hardware.change(HardwareState(True, None, "NVML said 999"))
    eventually(lambda: "machine" not in lab.status())
    assert [patch for patch in lab.api.patches if "machine" in patch.get("status", {})][1:] == [lab.api.patches[-1]]


def test_after_a_restart_a_reading_that_does_not_end_withdraws_nothing(lab: Lab) -> None:
    first = lab.instance()
    eventually(lambda: lab.status().get("machine"))
    first.stop()
    machine = lab.status()["machine"]
    lab.instance(timing=dataclasses.replace(TIMING, first_reading=0.05), hardware=HardwareState())
    eventually(lambda: lab.condition("HardwareReady").get("reason") == "NotReadYet")
    assert lab.status()["machine"] == machine


def test_a_refusal_is_said(lab: Lab) -> None:
    instance = lab.instance()
    instance.connection.refuse("no common version")
    eventually(lambda: lab.condition("KubeletRegistered").get("reason") == "Refused")
    writes = len(lab.api.patches)
    instance.connection.refuse("no common version")
    assert lab.api.stays_quiet()
    assert len(lab.api.patches) == writes


def test_a_kubelet_that_stays_silent_is_said_after_a_while(lab: Lab) -> None:
    lab.instance(timing=dataclasses.replace(TIMING, grace=0.1))
    eventually(lambda: lab.condition("KubeletRegistered").get("reason") == "NotAsked")
    assert lab.registration() == {
        "pluginInstance": "pod-1",
        "pluginVersion": "1.0",
        "registered": False,
        "registrations": 0,
    }


def test_a_reading_that_hangs_does_not_hold_the_object_back_for_ever(lab: Lab) -> None:
    lab.instance(timing=dataclasses.replace(TIMING, first_reading=0.05), hardware=HardwareState())
    eventually(lambda: lab.condition("HardwareReady").get("reason") == "NotReadYet")


def test_a_deleted_object_is_made_again(lab: Lab) -> None:
    instance = lab.instance()
    instance.connection.register()
    eventually(lambda: lab.registration().get("registered"))
    uid = lab.inventory()["metadata"]["uid"]
    lab.api.delete(NODE_INVENTORIES, NODE)
    eventually(lambda: lab.registration().get("registered") and lab.inventory()["metadata"]["uid"] != uid)


def test_a_node_that_was_made_anew_becomes_the_owner(lab: Lab) -> None:
    first = lab.instance()
    eventually(lambda: lab.status().get("machine"))
    first.stop()
    stranger = [{"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "of-another-life"}]
    EmbeddedApi.patch(lab.api, NODES, NODE, {"metadata": {"labels": {"keep": "it"}}})
    owner = lab.inventory()["metadata"]["ownerReferences"] + stranger
    EmbeddedApi.patch(lab.api, NODE_INVENTORIES, NODE, {"metadata": {"ownerReferences": owner}})
    lab.api.delete(NODES, NODE)
    ensure_node(lab.api, NODE)
    lab.instance()
    uid = lab.api.get(NODES, NODE)["metadata"]["uid"]
    eventually(lambda: [o["uid"] for o in lab.inventory().get("metadata", {}).get("ownerReferences", [])] == [uid])


def test_api_errors_are_tried_again(lab: Lab) -> None:
    lab.api.failures = [Unavailable("the server is away"), Unavailable("the server is away")]
    lab.instance()
    eventually(lambda: lab.status().get("machine"))
    assert len(lab.api.patches) == 3


def test_a_missing_node_is_waited_for() -> None:
    lab = Lab()
    lab.api.delete(NODES, NODE)
    try:
        lab.instance()
        assert lab.inventory() == {}
        ensure_node(lab.api, NODE)
        eventually(lambda: lab.status().get("machine"))
    finally:
        lab.close()


def test_the_first_state_waits_for_mig_layouts(lab: Lab) -> None:
    """GPUs that are about to be divided must not be offered as they are."""
    instance = lab.instance(layouts=Layouts(pending=True))
    assert lab.api.stays_quiet()
    assert not lab.status()
    instance.layouts.end("WaitingForClaims")
    eventually(lambda: lab.condition(MIG_LAYOUT_APPLIED).get("reason") == "WaitingForClaims")
    instance.layouts.end(None)
    eventually(lambda: not lab.condition(MIG_LAYOUT_APPLIED))


def test_layouts_that_take_too_long_do_not_keep_a_node_back(lab: Lab) -> None:
    lab.instance(timing=dataclasses.replace(TIMING, first_layouts=0.1), layouts=Layouts(pending=True))
    eventually(lambda: lab.status().get("machine"))
    assert not lab.condition(MIG_LAYOUT_APPLIED)


def test_a_restart_keeps_what_is_said_about_layouts_until_it_knows_better(lab: Lab) -> None:
    first = lab.instance(layouts=Layouts(result="NeedsReset"))
    eventually(lambda: lab.condition(MIG_LAYOUT_APPLIED))
    since = lab.condition(MIG_LAYOUT_APPLIED)["lastTransitionTime"]
    first.stop()
    second = lab.instance(timing=dataclasses.replace(TIMING, first_layouts=0.0), layouts=Layouts(pending=True))
    assert second.writer.written.wait(5)
    assert lab.condition(MIG_LAYOUT_APPLIED)["reason"] == "NeedsReset"
    second.layouts.end("WaitingForClaims")
    eventually(lambda: lab.condition(MIG_LAYOUT_APPLIED)["reason"] == "WaitingForClaims")
    assert lab.condition(MIG_LAYOUT_APPLIED)["lastTransitionTime"] == since


def test_without_hardware_nobody_waits_for_layouts(lab: Lab) -> None:
    lab.instance(hardware=HardwareState(True, problem="no driver"), layouts=Layouts(pending=True))
    eventually(lambda: lab.condition("HardwareReady").get("status") == "False")
