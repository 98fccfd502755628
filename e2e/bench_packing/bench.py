"""The bench on one cluster: its nodes, and a run of one packing on them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from api.mig_policy import MigPacking
from dra_driver.kube.interface import NAMESPACES, RESOURCE_CLAIM_TEMPLATES, KubeApi
from dra_driver.slices.decode import generation_of, pool_of, published_devices
from e2e.bench_packing.beginnings import NAMESPACE, Beginnings
from e2e.bench_packing.control import ControlPlane, Reading
from e2e.bench_packing.figures import Sample
from e2e.bench_packing.nodes import Nodes
from e2e.bench_packing.play import Player, template_of
from e2e.bench_packing.room import Kind, Room
from e2e.bench_packing.traffic import GPUS, Traffic, Wish, traffic
from e2e.clusters.local.cluster import LocalCluster
from e2e.kit.pools import driver_slices
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import MIG_CLASS, claim_spec, exactly, is_profile
from tests.bench.packing.products import WHOLE, product
from tests.bench.packing.traces import Mix

_PUBLISHED_SECONDS = 300.0
# kube-scheduler looks at all nodes for a pod, for some 5 ms at each: with more pods their queue would be measured.
_NODES_A_SECOND = 100.0
_QUIET_SECONDS = 3.0  # without a write, so that what a start has to do is done


@dataclass(frozen=True, slots=True)
class Plan:
    """See :class:`e2e.bench_packing.traffic.Wish`; ``rate`` is less where there are many nodes."""

    machine: str
    mix: Mix
    load: float
    rate: float
    seconds: float


@dataclass(slots=True)
class Bench:
    """Use it between ``open`` and the end of that context."""

    cluster: LocalCluster
    api: KubeApi
    plan: Plan
    nodes: Nodes = field(init=False)
    _beginnings: Beginnings = field(init=False)
    _kind: Kind | None = None

    def __post_init__(self) -> None:
        self.nodes = Nodes(self.api, self.plan.machine)
        self._beginnings = Beginnings(self.api)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        self.api.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        for profile in product(self.plan.machine).kinds:
            if profile != WHOLE:
                self._add_template(profile)
        self._beginnings.open()
        with self.nodes.answering():
            yield

    def grow(self, count: int) -> None:
        """Until there are ``count`` nodes."""
        self._say(f"making {count - len(self.nodes.names)} nodes")
        self.nodes.grow(count)

    def run(self, packing: MigPacking, number: int) -> Sample:
        """The same ``number`` is the same traffic at the same size."""
        control = ControlPlane(self.cluster)
        with control.controller(packing):
            eventually(lambda: self._check_published(control), _PUBLISHED_SECONDS)
            kind = self._known_kind(packing)
            came = self._traffic(number, kind)
            self._beginnings.restore([beginning.place for beginning in came.beginnings])
            self._wait_quiet(control)
            generations, before, after = self._generations(), control.read(), dict[str, Reading]()
            self._say(
                f"{packing}, {len(self.nodes.names)} nodes: {len(came.beginnings)} claims are there, "
                f"{len(came.coming)} pods to come, which live {came.mean_life:.0f} s"
            )
            player = Player(self.api, came, self._beginnings, Room(kind, self.nodes.names))
            played = player.play(self.plan.seconds, lambda: after.update(control.read()))
            moved = self._generations()
        return Sample(
            len(self.nodes.names),
            len(self.nodes.names) * GPUS * product(self.plan.machine).slices,
            played,
            {name: reading.since(before[name]) for name, reading in after.items()},
            sum(moved[pool] - generation for pool, generation in generations.items()),
        )

    def _traffic(self, number: int, kind: Kind) -> Traffic:
        plan = self.plan
        rate = min(plan.rate, _NODES_A_SECOND / len(self.nodes.names))
        wish = Wish(plan.machine, plan.mix, rate, plan.load, plan.seconds, seed=number + 1)
        return traffic(wish, kind, self.nodes.names)

    def _known_kind(self, packing: MigPacking) -> Kind:
        """Of the first node, as it is published the first time, which is while nothing is in use."""
        if self._kind is None:
            self._kind = Kind.of(published_devices(driver_slices(self.api, self.nodes.names[0])))
            self._say(f"a node has {len(self._kind.uses)} devices ({packing})")
        return self._kind

    def _check_published(self, control: ControlPlane) -> None:
        pools = control.controller_counts().total("gpu_dra_controller_pools")
        if pools < len(self.nodes.names):
            raise NotYet(f"{pools:.0f} of {len(self.nodes.names)} pools are published as desired")

    def _wait_quiet(self, control: ControlPlane) -> None:
        last, since = -1.0, time.monotonic()

        def look() -> None:
            nonlocal last, since
            writes = control.controller_counts().total("gpu_dra_controller_slice_writes_total")
            if writes != last:
                last, since = writes, time.monotonic()
            if time.monotonic() - since < _QUIET_SECONDS:
                raise NotYet(f"{writes:.0f} slices were written, and still more")

        eventually(look, _PUBLISHED_SECONDS, poll=0.5)

    def _generations(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for each in driver_slices(self.api):
            found[pool_of(each)] = max(found.get(pool_of(each), 0), generation_of(each))
        return found

    def _add_template(self, profile: str) -> None:
        spec = claim_spec(exactly(device_class=MIG_CLASS, selectors=[is_profile(profile)]))
        metadata = {"name": template_of(profile), "namespace": NAMESPACE}
        self.api.create(RESOURCE_CLAIM_TEMPLATES, {"metadata": metadata, "spec": {"spec": spec}})

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
