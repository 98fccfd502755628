"""The network between the machines: a bridge in ``control``, a link to each node, routes to the nodes' pods.

All of it lives in the machines' network namespaces and goes with them; the host gets no interface, route or rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from e2e.clusters.local.machine import Machine
from e2e.clusters.local.settings import CONTROL_ADDRESS, NodeSettings

_BRIDGE = "machines"


def connect(control: Machine, nodes: Mapping[NodeSettings, Machine]) -> None:
    """Call once, when all machines are up. Raises ClusterError."""
    _ip(
        control,
        [
            "link set lo up",
            f"link add {_BRIDGE} type bridge",
            f"addr add {CONTROL_ADDRESS}/24 dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
            # Without a default route components find no address of their own (apimachinery util/net/interface.go).
            f"route add default via {CONTROL_ADDRESS}",
            *_pod_routes(nodes),
        ],
    )
    _forward_packets(control)
    for node, machine in nodes.items():
        attach(control, node, machine, tuple(nodes))


def attach(control: Machine, node: NodeSettings, machine: Machine, everybody: Sequence[NodeSettings]) -> None:
    """Link a machine that has just been booted to the bridge. Raises ClusterError."""
    _ip(
        control,
        [
            f"link add {node.name} type veth peer name eth0 netns {machine.pid()}",
            f"link set {node.name} master {_BRIDGE}",
            f"link set {node.name} up",
        ],
    )
    _ip(
        machine,
        [
            "link set lo up",
            f"addr add {node.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {CONTROL_ADDRESS}",
            *_pod_routes(other for other in everybody if other != node),
        ],
    )
    _forward_packets(machine)


def _pod_routes(nodes: Iterable[NodeSettings]) -> list[str]:
    return [f"route add {node.pod_range} via {node.address}" for node in nodes]


def _forward_packets(machine: Machine) -> None:
    machine.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])


def _ip(machine: Machine, lines: Sequence[str]) -> None:
    script = "; ".join(f"ip {line} || exit 1" for line in lines)
    # Only the network is entered: `netns <pid>` means a pid as it is out here.
    machine.run(["sh", "-c", script], namespaces=("net",))
