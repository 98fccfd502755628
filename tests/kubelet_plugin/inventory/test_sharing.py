"""What the plugin knows of the sharing in force: from its NodeInventory, over outages, and before it was read."""

from __future__ import annotations

from typing import Any

import pytest

from api.claim_config import SharingStrategy
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import Replicas, SharingPolicy, SharingRule
from dra_driver.kube.interface import NODE_INVENTORIES
from dra_driver.simulation.kubelet.kubelet import ensure_node
from dra_driver.simulation.store import EmbeddedApi
from kubelet_plugin.inventory.sharing import NodeSharingInForce, SharingUnknown
from kubelet_plugin.inventory.status import PluginInstance
from kubelet_plugin.inventory.writer import InventoryWriter
from tests.devices.builders import gpu
from tests.kubelet_plugin.fakes import NODE, eventually
from tests.kubelet_plugin.inventory.test_writer import READ, TIMING, Api, Connection, Hardware

TIME_SLICING, MPS = SharingStrategy.TIME_SLICING, SharingStrategy.MPS
GPU = gpu(0, mig=None)


def inventory(replicas: int, **more: Any) -> dict[str, Any]:
    shared = {"resource": "nvidia.com/gpu", "strategy": "TimeSlicing", "replicas": replicas, **more}
    return {"spec": {"challenge": "x", "sharing": {"source": "ns/name, key any", "resources": [shared]}}}


def test_rules_come_before_what_the_controller_put_in_force() -> None:
    own = SharingRule(Replicas(MPS, 8), GpuSelector(minors=(0,)))
    sharing = NodeSharingInForce(SharingPolicy((own,)))
    sharing.saw(inventory(4, onePerRequest=True))
    assert sharing.current().for_gpu("n", GPU) == Replicas(MPS, 8)
    assert sharing.current().for_gpu("n", gpu(1)) == Replicas(TIME_SLICING, 4, one_per_request=True)


def test_it_changes_and_goes_with_the_inventory() -> None:
    sharing = NodeSharingInForce(SharingPolicy())
    sharing.saw(inventory(4))
    sharing.saw(inventory(2))
    assert sharing.current().for_gpu("n", GPU) == Replicas(TIME_SLICING, 2)
    sharing.saw({"spec": {}})
    assert sharing.current().for_gpu("n", GPU) is None
    sharing.saw({})
    assert sharing.current().for_gpu("n", GPU) is None


def test_before_it_was_read_only_what_a_rule_decides_is_known() -> None:
    sharing = NodeSharingInForce(SharingPolicy((SharingRule(Replicas(MPS, 8), GpuSelector(minors=(0,))),)))
    assert sharing.current().for_gpu("n", GPU) == Replicas(MPS, 8)
    with pytest.raises(SharingUnknown, match="NodeInventory n was not read"):
        sharing.current().for_gpu("n", gpu(1))


@pytest.mark.parametrize("spec", [{"sharing": {"source": 1}}, {"sharing": "x"}])
def test_what_cannot_be_read_leaves_what_was_known(spec: Any) -> None:
    sharing = NodeSharingInForce(SharingPolicy())
    sharing.saw(inventory(4))
    sharing.saw({"spec": spec})
    assert sharing.current().for_gpu("n", GPU) == Replicas(TIME_SLICING, 4)


@pytest.fixture
def api() -> Api:
    api = Api()
    ensure_node(api, NODE)
    return api


def test_the_writer_tells_it_of_each_change_of_its_own_object(api: Api) -> None:
    sharing = NodeSharingInForce(SharingPolicy())
    writer = InventoryWriter(
        api,
        NODE,
        PluginInstance("pod-1", "1.0"),
        Hardware(READ),
        Connection(),
        registry="/r",
        reader=sharing,
        timing=TIMING,
    )
    writer.start()
    try:
        eventually(lambda: known(sharing))
        assert sharing.current().for_gpu(NODE, GPU) is None
        EmbeddedApi.patch(api, NODE_INVENTORIES, NODE, {"spec": inventory(4)["spec"]})
        eventually(lambda: sharing.current().for_gpu(NODE, GPU) == Replicas(TIME_SLICING, 4))
        EmbeddedApi.patch(api, NODE_INVENTORIES, NODE, {"spec": {"sharing": None}})
        eventually(lambda: sharing.current().for_gpu(NODE, GPU) is None)
    finally:
        writer.stop()


def known(sharing: NodeSharingInForce) -> bool:
    try:
        sharing.current().for_gpu(NODE, GPU)
    except SharingUnknown:
        return False
    return True
