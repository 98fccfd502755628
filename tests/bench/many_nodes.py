"""A controller over thousands of nodes, in a process of its own: ``python -m tests.bench.many_nodes COUNT``.

Its API server is in the same process and has one node, published by a controller before. Lists of inventories, nodes
and slices are that node's again and again under other names, decoded from JSON as they come: as dictionaries all of
them would take more memory than what is measured. Nothing of them changes, so the controller has nothing to write; what
it writes all the same ends the measurement. Prints the :class:`Figures` as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.request import urlopen

from controller.app import Controller, ControllerOptions
from controller.collecting import collect_seldom
from dra_driver.allocator.pools import pools_from_slices
from dra_driver.kube.interface import NODE_INVENTORIES, NODES, RESOURCE_SLICES, ListPage, Obj, Resource
from dra_driver.simulation.store import EmbeddedApi
from tests.bench.process import rss_mib
from tests.controller.world import DRIVER, World
from tests.devices.recorded import recorded

MACHINE: Final = "h100-sxm5-80gb"
_NODE: Final = "node-00000"
_COPIED: Final = (NODES, NODE_INVENTORIES, RESOURCE_SLICES)
_LONGEST_SECONDS = 900.0
_LOOK_SECONDS = 0.5  # each is a look at what is remembered of every node


@dataclass(frozen=True, slots=True)
class Figures:
    """``listed_s``: start until all objects are known; ``looked_at_s``: until every node was found to be as desired.
    ``node_ms``: processor time of one look at a node. ``devices``: of one node."""

    devices: int
    listed_s: float
    looked_at_s: float
    node_ms: float
    rss_mib: float


class ManyNodes:
    """The API of ``api``, with ``count`` nodes in place of its one. Of the copied objects nothing may be written."""

    def __init__(self, api: EmbeddedApi, count: int) -> None:
        self._api = api
        self._count = count
        self._texts = {resource: [json.dumps(each) for each in api.list(resource).items] for resource in _COPIED}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def list(
        self, resource: Resource, *arguments: Any, limit: int = 0, continue_token: str = "", **more: Any
    ) -> ListPage:
        if resource not in _COPIED:
            return self._api.list(resource, *arguments, limit=limit, continue_token=continue_token, **more)
        texts, first = self._texts[resource], int(continue_token or 0)
        last = min(first + max(1, limit // len(texts)), self._count)
        items = [json.loads(text.replace(_NODE, _name(number))) for number in range(first, last) for text in texts]
        version = self._api.list(resource).resource_version
        return ListPage(items, version, str(last) if last < self._count else "")

    def create(self, resource: Resource, obj: Obj, *, dry_run: bool = False) -> Obj:
        _check_allowed(resource, dry_run=dry_run)
        return self._api.create(resource, obj, dry_run=dry_run)

    def update(self, resource: Resource, obj: Obj, **more: Any) -> Obj:
        _check_allowed(resource)
        return self._api.update(resource, obj, **more)

    def patch(self, resource: Resource, name: str, *arguments: Any, **more: Any) -> Obj:
        _check_allowed(resource)
        return self._api.patch(resource, name, *arguments, **more)

    def delete(self, resource: Resource, name: str, *arguments: Any, **more: Any) -> None:
        _check_allowed(resource)
        self._api.delete(resource, name, *arguments, **more)


def _check_allowed(resource: Resource, *, dry_run: bool = False) -> None:
    if resource in _COPIED and not dry_run:
        raise RuntimeError(f"a controller with nothing to do wants to write {resource.plural}")


def _name(number: int) -> str:
    return f"node-{number:05d}"


def measure(count: int) -> Figures:
    """Of ``count`` nodes. Raises RuntimeError when the controller is not done in a quarter of an hour."""
    world = World()
    world.add_node(_NODE, recorded(MACHINE))
    world.start_controller()
    world.wait(lambda: _is_whole(world), "the first node's devices", 30)
    world.assert_quiet()
    world.close()
    many = ManyNodes(world.api, count)
    controller = Controller(many, ControllerOptions(driver=DRIVER, http_endpoint="127.0.0.1:0"))
    collect_seldom()
    began = time.monotonic()
    controller.start()
    controller.inputs.wait_for_sync()
    listed, cpu = time.monotonic() - began, time.process_time()
    while _published(controller) < count:
        if time.monotonic() - began > _LONGEST_SECONDS:
            raise RuntimeError(f"{_published(controller)} of {count} nodes are as desired after {_LONGEST_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    figures = Figures(len(world.devices(_NODE)), listed, took, cpu * 1000 / count, rss_mib(os.getpid()))
    controller.stop()
    return figures


def _is_whole(world: World) -> bool:
    pools = pools_from_slices(world.slices(_NODE))
    return bool(pools) and not any(pool.problem for pool in pools)


def _published(controller: Controller) -> int:
    with urlopen(f"http://127.0.0.1:{controller.http_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("gpu_dra_controller_pools "))))


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1])))))
