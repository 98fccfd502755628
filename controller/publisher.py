"""Brings the ResourceSlices of one node to what they should be: the controller's one reconciler.

For each node: inventory, policy (with what of the device plugin's configuration is in force there, ``sharing``) and
claims make the desired pool (``pool``), the difference to the slices that exist makes a write plan (``planning``),
``writes`` carries it out. Three rules bound that:

- slices that are not there are created only on proof that the plugin is registered (``challenge``);
- before each write this process must hold the lease;
- a generation never goes back while this process remembers.

Workers call :meth:`Publisher.reconcile`, one node at a time each; the watches call :meth:`slice_changed`.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from controller import challenge
from controller.challenge import ChallengeTimings, Step
from controller.features import ServerFeatures
from controller.inputs import Inputs
from controller.metrics import ControllerMetrics
from controller.node_state import NodeState, NodeStates
from controller.own_writes import REMEMBER_SECONDS
from controller.planning import devices_of, is_of_another_node, plan_pool
from controller.pool import offer
from controller.problem import Problem, Told
from controller.reorder_pace import POOLS_A_SECOND, Reorder
from controller.reports import Reporter, published_told
from controller.sharing import SharingKeeper
from controller.sharing_told import sharing_told
from controller.writes import NotLeadingError, SliceWriter
from dra_driver.devices.model import DeviceSet
from dra_driver.devices.plugin_sharing import rules_of
from dra_driver.devices.policy import DevicePolicy
from dra_driver.kube.backoff import TokenBucket
from dra_driver.kube.interface import NODE_INVENTORIES, Invalid, KubeApi, NotFound, Obj
from dra_driver.slices.cutting import PoolOwner
from dra_driver.slices.decode import generation_of
from dra_driver.slices.diff import WritePlan
from dra_driver.slices.features import ApiFeatures

logger = logging.getLogger(__name__)

_REFUSED_SECONDS = 300.0  # a slice that the server refuses; a change of the inventory tries sooner
_OVERDRAWN_SECONDS = 5.0
_STALE_SECONDS = 0.5  # the watch usually brings the newer state sooner


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """``driver`` is the driver name of slices and claims."""

    driver: str
    policy: DevicePolicy
    timings: ChallengeTimings


class Publisher:
    """Thread-safe as long as one node is reconciled by one thread at a time."""

    def __init__(
        self,
        api: KubeApi,
        settings: PublisherSettings,
        inputs: Inputs,
        writer: SliceWriter,
        reporter: Reporter,
        metrics: ControllerMetrics,
        *,
        requeue_all: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``requeue_all`` makes every node be looked at again: the server's features turned out to be fewer."""
        self._api = api
        self._settings = settings
        self._inputs = inputs
        self._writer = writer
        self._reporter = reporter
        self._metrics = metrics
        self._requeue_all = requeue_all
        self._clock = clock
        self._features = ServerFeatures(api)
        self._sharing = SharingKeeper(api, inputs, settings.policy)
        self._states = NodeStates(clock)
        self._reorder_turns = TokenBucket(POOLS_A_SECOND, 1, clock=clock)
        metrics.nodes.set_function(lambda: float(inputs.inventory_count()))
        metrics.pools.set_function(lambda: float(sum(state.devices is not None for state in self._states.all())))
        metrics.devices.set_function(lambda: float(sum(state.devices or 0 for state in self._states.all())))
        metrics.challenges_outstanding.set_function(
            lambda: float(sum(challenge.is_outstanding(state.challenge) for state in self._states.all()))
        )

    def slice_changed(self, pool: str, old: Obj | None, new: Obj | None) -> None:
        """Told by the watch, before the pool is looked at again."""
        state = self._states.of(pool)
        state.saw_generation(generation_of(new or old or {}))
        if new is None and old is not None and state.own.saw_deletion(old):
            self._wiped(state, old["metadata"]["name"])

    def reconcile(self, name: str) -> float | None:
        """Look at one node and write what is needed. Returns after how many seconds to look again, None for not at all
        until something changes. Raises ApiError when a request failed that should simply be tried again."""
        with self._metrics.reconcile_seconds.time():
            try:
                return self._reconcile(name)
            except NotLeadingError:
                logger.info("not leading any more, nothing more is written", extra={"node": name})
                return None

    def _reconcile(self, name: str) -> float | None:
        self._writer.check_leading()
        inventory, node = self._inputs.inventory(name), self._inputs.node(name)
        if node is None:
            # Its slices and its inventory are owned by it; the garbage collector deletes them.
            if not self._inputs.slices(name):
                self._states.forget(name)
            return None
        if inventory is None or is_of_another_node(inventory, node):
            # No plugin speaks for this node (yet). Slices of an uninstalled one are deleted by the kubelet.
            return None
        state = self._states.of(name)
        sharing, inventory = self._sharing.keep(state, inventory, node)
        offered = offer(inventory, self._settings.policy.sharing_also(rules_of(sharing.in_force)))
        problems = list(offered.problems)
        again = None
        if offered.device_set is not None:
            about_sharing = partial(sharing_told, sharing, offered.device_set, offered.not_shared)
            again = self._publish(state, inventory, node, offered.device_set, about_sharing, problems)
        self._reporter.problems(state, problems, inventory=inventory, node=node)
        return again

    def _publish(
        self,
        state: NodeState,
        inventory: Obj,
        node: Obj,
        offered: DeviceSet,
        about_sharing: Callable[[ApiFeatures, DeviceSet], Told | None],
        problems: list[Problem],
    ) -> float | None:
        """Plan and write; adds to ``problems`` what it finds."""
        name = node["metadata"]["name"]
        owner = PoolOwner(self._settings.driver, name, node["metadata"]["uid"])
        existing = state.own.overlay(self._inputs.slices(name))
        known, in_use = state.known_devices(devices_of(existing)), self._inputs.in_use(name)
        now = self._clock()
        reorder = state.reorder_pace.at(now, self._settings.policy.mig.packing)
        features = self._features.for_devices(offered, owner)
        plan = plan_pool(
            owner,
            offered,
            existing=existing,
            known=known,
            in_use=in_use,
            by_shares=self._inputs.by_shares(name),
            features=features,
            generation_floor=state.highest_generation,
            reorder=reorder,
        )
        state.remember(known, plan.devices, in_use)
        if reorder is Reorder.NOW:
            state.reorder_pace.had_turn(now, reordered=not plan.is_settled)
        problems += plan.problems
        self._writer.check_leading()  # asking for the features may have taken long
        told = filter(None, (published_told(plan.degraded), about_sharing(features, plan.devices)))
        self._reporter.conditions(state, tuple(told), inventory=inventory, node=node)
        if plan.writes is None:
            return None
        if plan.writes.is_empty:
            with state.lock:
                state.challenge = challenge.used_up(state.challenge)
            state.devices = len(plan.devices.devices)
            if not plan.is_settled:
                return state.reorder_pace.wish(now, self._reorder_turns)
            return REMEMBER_SECONDS if state.own.unconfirmed() else None
        state.devices = None
        try:
            return self._converge(state, inventory, plan.writes)
        except Invalid as error:
            problems.append(Problem("SliceRefused", f"the API server refuses a ResourceSlice of {name}: {error}"))
            return _REFUSED_SECONDS

    def _converge(self, state: NodeState, inventory: Obj, plan: WritePlan) -> float | None:
        """Write, if that is allowed now; else how long to wait."""
        name = inventory["metadata"]["name"]
        if plan.creates:
            decision = self._decide(state, inventory)
            if decision.step is Step.ISSUE:
                self._issue(state, name)
                return challenge.LOST_SECONDS
            if decision.step is Step.WAIT:
                return decision.seconds
        if not state.budget.try_take():
            logger.warning("too many writes to one pool, pausing", extra={"node": name})
            return _OVERDRAWN_SECONDS
        outcome = self._writer.apply(plan, state.own)
        state.saw_generation(plan.generation)
        if outcome.wiped:
            self._wiped(state, name)
            return 0.0
        if outcome.stale:
            return _STALE_SECONDS
        if outcome.dropped and self._features.learn_dropped(outcome.dropped):
            self._requeue_all()
            return 0.0
        return REMEMBER_SECONDS

    def _decide(self, state: NodeState, inventory: Obj) -> challenge.Decision:
        written = (inventory.get("spec") or {}).get("challenge") or ""
        answer = (inventory.get("status") or {}).get("answer") or ""
        with state.lock:
            now = self._clock()
            state.challenge = challenge.saw_answer(state.challenge, answer, now)
            return challenge.decide(state.challenge, challenge=written, answer=answer, now=now)

    def _issue(self, state: NodeState, name: str) -> None:
        self._writer.check_leading()
        nonce, now = secrets.token_hex(8), self._clock()
        try:
            self._api.patch(NODE_INVENTORIES, name, {"spec": {"challenge": nonce}})
        except NotFound:
            logger.info("the inventory is gone, nobody to ask", extra={"node": name})
            return
        with state.lock:
            state.challenge = challenge.issued(state.challenge, nonce, now)
        self._metrics.challenges.inc()
        logger.info("slices are missing, asked the plugin whether it is registered", extra={"node": name})

    def _wiped(self, state: NodeState, what: str) -> None:
        chance = random.random()  # noqa: S311 - spreads load, no secret
        with state.lock:
            state.challenge = challenge.saw_wipe(state.challenge, self._clock(), chance, self._settings.timings)
        if self._writer.may_write():  # to a standby, the leader's own deletions look the same
            self._metrics.wipes.inc()
            logger.info("a slice was deleted by somebody else", extra={"slice": what})
