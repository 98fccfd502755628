"""A node of a recorded machine that is offered in fractions, and claims that come and go on it, through the allocator.

The world asks what the scheduler would be asked, and looks at the answers with ``fraction_rules``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from dra_driver.allocator.allocate import Allocator, Snapshot, devices_in_use
from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.allocator.model import InUse
from dra_driver.allocator.nodes import Node
from dra_driver.allocator.parse import parse_claim, parse_class
from dra_driver.allocator.pools import pools_from_slices
from dra_driver.allocator.reasons import Failure, explain
from dra_driver.allocator.status import allocation_status
from dra_driver.cli.shares.holding import nodes_of
from dra_driver.cli.shares.reading import ClusterView
from dra_driver.cli.shares.use import DeviceUse, Use
from dra_driver.devices.shares import COMPUTE, MEMORY
from dra_driver.devices.sharing import Fractions
from dra_driver.kube.interface import RESOURCE_CLAIMS, Obj
from dra_driver.simulation.manifests import device_classes
from dra_driver.simulation.validation.defaults import apply_defaults
from e2e.kit.fraction_requests import Offer, random_pod
from e2e.kit.workloads import GPU_CLASS, MIG_CLASS, claim_spec, exactly, only_uuid
from tests.allocator.builders import DRIVER, share_ids
from tests.property.fraction_nodes import MIB, NODE, random_node
from tests.property.fraction_rules import Ledger, asked_of, demands, is_for, number, results_of, taken

ENGINE = CelEngine()
STEPS = ((256 * MIB, 1), (1024 * MIB, 5), (512 * MIB, 30), (100 * MIB, 7))
_TIME = "2026-11-23T08:03:30Z"
_MOST_BYTES = 2**63 - 1
_MOST_HOLDERS = 12
_TRIES = 400  # choices of devices that the restatement looks through


@dataclass
class FractionWorld:
    """``seed`` decides everything: the steps, the reserves, which GPUs are divided, whether there is MIG, the claims."""

    machine_name: str
    seed: int
    sets: int = 0
    given: int = 0
    refused: int = 0
    refusals_checked: int = 0
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(f"{self.machine_name}/{self.seed}")
        memory_step, compute_step = STEPS[self.seed % len(STEPS)]
        self.node = random_node(self.random, self.machine_name, Fractions(memory_step, compute_step))
        self.slices = self.node.slices()
        self.devices = {each["name"]: each for entry in self.slices for each in entry["spec"].get("devices") or ()}
        self.pools = pools_from_slices(self.slices)
        self.classes = {each["metadata"]["name"]: parse_class(each) for each in device_classes()}
        shared = [each for each in self.devices.values() if each.get("allowMultipleAllocations")]
        memory = int(number(shared[0]["capacity"][MEMORY]["value"]))
        gpus = sum(each["attributes"]["type"]["string"] == "gpu" for each in self.devices.values())
        self.offer = Offer(memory, memory_step, compute_step, gpus, self.node.profiles)
        self.new_id = share_ids()
        self.held: dict[str, Obj] = {}

    # -- what happens ------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One set of requests; before it, some claims may end."""
        self.free_some()
        self.ask(self.random_claims())
        if self.sets % 10 == 0:
            self.check_shares()

    def free_some(self) -> None:
        while len(self.held) > _MOST_HOLDERS or (self.held and self.random.random() < 0.5):
            self.free_one()

    def random_claims(self) -> list[Obj]:
        """The claims of a new pod, as a server stores them."""
        self.sets += 1
        specs = random_pod(self.random, self.offer)
        wanted = [claim(f"c{self.sets}-{number}", spec) for number, spec in enumerate(specs)]
        for entry in wanted:
            apply_defaults(RESOURCE_CLAIMS, entry, now=_TIME)
        return wanted

    def ask(self, wanted: Sequence[Obj]) -> bool:
        """Whether all of a pod's claims were allocated; they hold what they have got."""
        self.history.append(f"asked: {[each['spec'] for each in wanted]}")
        found = self.allocate(wanted)
        if isinstance(found, Failure):
            self.history.append(f"  refused: {explain({NODE: found})}")
            self.refused += 1
            self._check_refusal(wanted, found)
            return False
        self.history.append(
            f"  {[[(each['device'], each.get('consumedCapacity')) for each in results_of(one)] for one in found]}"
        )
        self.given += 1
        for entry in found:
            self._check_results(entry)
            self.held[entry["metadata"]["name"]] = entry
        assert not self.ledger().problems()
        return True

    def free_one(self) -> None:
        """A claim ends. Nobody has come since, so the same could be had at once."""
        name = self.random.choice(list(self.held))
        self.history.append(f"{name} ends")
        ended = self.held.pop(name)
        again = self.allocate([{**ended, "status": {}}])
        if not isinstance(again, Failure):
            return
        assert again.fatal, f"what {name} had is free, and cannot be had again: {again}"
        self._check_beyond([ended])

    def free_all(self) -> None:
        """Then everything that is offered can be had at once, by whoever asks for nothing in particular."""
        while self.held:
            self.free_one()
        whole = {
            each: device for each, device in self.devices.items() if device["attributes"]["type"]["string"] == "gpu"
        }
        if whole:
            assert self.ask([claim("all", claim_spec(exactly(device_class=GPU_CLASS, everything=True)))])
            assert {each["device"] for each in results_of(self.held["all"])} == set(whole)
            for result in results_of(self.held.pop("all")):
                all_of_it = number(whole[result["device"]]["capacity"][MEMORY]["value"])
                assert "shareID" not in result or number(result["consumedCapacity"][MEMORY]) == all_of_it

    def allocate(self, wanted: Sequence[Obj]) -> list[Obj] | Failure:
        snapshot = Snapshot(self.pools, self.classes, devices_in_use(self.held.values()))
        outcome = Allocator(ENGINE, snapshot).allocate(Node(NODE), [parse_claim(entry) for entry in wanted])
        if isinstance(outcome, Failure):
            return outcome
        statuses = (allocation_status(each, NODE, _TIME, self.new_id) for each in outcome)
        return [{**entry, "status": {"allocation": status}} for entry, status in zip(wanted, statuses, strict=True)]

    def story(self) -> str:
        """For a failure: how to get there again, and what came last."""
        last = "\n".join(self.history[-12:])
        return f"machine {self.machine_name}, seed {self.seed}, {self.offer}; the last that happened:\n{last}"

    # -- what must hold ----------------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        ledger = Ledger(self.node.machine, self.slices)
        ledger.charge(self.held.values())
        return ledger

    def check_shares(self) -> None:
        """What ``gpu-dra shares`` calls the largest can be had, and not a step more of anything."""
        view = ClusterView(DRIVER, (NODE,), {pool.name: pool for pool in self.pools}, self._in_use(), {}, {})
        for row in (row for node in nodes_of(view) for row in node.devices):
            uses = {use.name: use for use in row.uses}
            if COMPUTE in uses:
                self._check_largest(row, uses[MEMORY], uses[COMPUTE])

    def _check_largest(self, row: DeviceUse, memory: Use, compute: Use) -> None:
        if row.blocked is not None:
            assert not self._can_have(row, "1", "0"), f"{row.name} is told to be {row.blocked}, and takes a share"
            return
        assert memory.largest is not None
        assert compute.largest is not None
        most, percent = str(memory.largest), str(compute.largest)
        assert self._can_have(row, most, percent), f"{most} and {percent} % of {row.name} cannot be had"
        more = str(int(number(most)) + self.offer.memory_step)
        assert not self._can_have(row, more, "0"), f"more than {most} of {row.name} can be had"
        above = str(int(percent) + self.offer.compute_step)
        assert not self._can_have(row, "1", above), f"more than {percent} % of {row.name} can be had"

    def _can_have(self, row: DeviceUse, memory: str, compute: str) -> bool:
        selector = f'"uuid" in device.attributes["{DRIVER}"] && {only_uuid(row.uuid)}'
        request = exactly(device_class=MIG_CLASS if row.is_mig else GPU_CLASS, selectors=[selector])
        request["exactly"]["capacity"] = {"requests": {MEMORY: memory, COMPUTE: compute}}
        return not isinstance(self.allocate([claim("one-more", claim_spec(request))]), Failure)

    def _check_results(self, entry: Obj) -> None:
        """Each request has what one of its ways asks for, of devices that are for it, in just the amounts it takes."""
        results = results_of(entry)
        for ways in demands(entry):
            ((name, demand),) = [way for way in ways if any(each["request"] == way[0] for each in results)]
            mine = [each for each in results if each["request"] == name]
            devices = {each["device"] for each in mine}
            assert len(devices) == len(mine), "one request has one share of a device at most"
            for result in mine:
                self._check_result(demand, result)
            if demand.get("allocationMode") == "All":
                fitting = (each for each in self.devices.values() if is_for(demand, each))
                assert devices == {each["name"] for each in fitting if taken(each, asked_of(demand)) is not None}
            else:
                assert len(mine) == demand.get("count", 1)

    def _check_result(self, demand: Obj, result: Obj) -> None:
        device = self.devices[result["device"]]
        expected = taken(device, asked_of(demand))
        assert is_for(demand, device)
        assert expected is not None, f"{device['name']} was given to who asks for {asked_of(demand)}"
        assert ("shareID" in result) == bool(device.get("allowMultipleAllocations"))
        if "shareID" in result:
            consumed = {name: number(text) for name, text in result["consumedCapacity"].items()}
            assert consumed == expected, f"{asked_of(demand)} of {device['name']} is {result['consumedCapacity']}"

    def _check_refusal(self, wanted: Sequence[Obj], failure: Failure) -> None:
        if failure.fatal:
            self._check_beyond(wanted)
            return
        ways = [way for entry in wanted for way in demands(entry)]
        possible = self.ledger().can_have(ways, tries=_TRIES)
        assert possible is not True, "there are devices for it, and it was refused"
        self.refusals_checked += possible is False

    def _check_beyond(self, wanted: Sequence[Obj]) -> None:
        """The scheduler counts steps in int64. Where it comes to an amount that is beyond, also on its way to another
        device or alternative, it gives up on the pod."""
        ways = [demand for entry in wanted for way in demands(entry) for _, demand in way]
        asked = [number(text) for demand in ways for text in asked_of(demand).values()]
        assert max(asked) > _MOST_BYTES - self.offer.memory_step

    # -- help --------------------------------------------------------------------------------------------------------

    def _in_use(self) -> InUse:
        return devices_in_use(self.held.values())


def claim(name: str, spec: Obj) -> Obj:
    return {"metadata": {"name": name, "namespace": "demo", "uid": f"uid-{name}"}, "spec": spec}
