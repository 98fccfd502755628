"""What the driver keeps on a node: a CDI file and a checkpoint entry for each prepared claim."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.cdi.names import CdiNames
from e2e.clusters.interface import Cluster
from e2e.kit.expected import DRIVER
from kubelet_plugin.prepare.checkpoint import ENDED, FILE_NAME, STATE_FOLDER
from kubelet_plugin.prepare.checkpoint_format import decode_file

CDI_FOLDER = "/var/run/cdi"
_STATE = f"/var/lib/kubelet/plugins/{DRIVER}/{STATE_FOLDER}"
CHECKPOINT = f"{_STATE}/{FILE_NAME}"
_LINE = "---"
_LIST = " ".join(f'ls "{folder}" 2>/dev/null; echo {_LINE};' for folder in (CDI_FOLDER, f"{_STATE}/{ENDED}"))
_READ = f'{_LIST} cat "{CHECKPOINT}" 2>/dev/null || true'


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """UIDs of claims. ``problems`` is what does not verify in the checkpoint."""

    cdi: frozenset[str]
    checkpoint: frozenset[str]
    problems: tuple[str, ...] = ()


def read_files(cluster: Cluster, node: str) -> NodeFiles:
    """Needs ``Ability.RUN_ON_NODE``."""
    return parse(cluster.run_on_node(node, ["sh", "-c", _READ]))


def read_cdi_file(cluster: Cluster, node: str, claim_uid: str) -> str:
    """The content of a claim's CDI file. Raises ClusterError when there is none."""
    return cluster.run_on_node(node, ["cat", f"{CDI_FOLDER}/{CdiNames().file_name(claim_uid)}"])


def parse(output: str) -> NodeFiles:
    """``output``: names in the CDI folder, claims that have ended since the checkpoint was written, and the checkpoint
    (empty when there is none), with a line of dashes between."""
    listing, ended, checkpoint = output.split(f"{_LINE}\n", 2)
    found = (CdiNames().claim_uid(name) for name in listing.splitlines())
    cdi = frozenset(uid for uid in found if uid)
    if not checkpoint.strip():
        return NodeFiles(cdi, frozenset())
    reading = decode_file(checkpoint.encode())
    return NodeFiles(cdi, frozenset(reading.entries).difference(ended.split()), reading.problems)
