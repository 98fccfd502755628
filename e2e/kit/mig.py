"""MIG of a node as its (simulated) driver tells it, without a word from gpu-dra's plugin: for comparing with claims.

Everything runs in the plugin's container, whose Python has the simulated NVML.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dra_driver.devices.naming import MigName, parse_name
from e2e.install import NAMESPACE
from e2e.kit.driver_pods import PLUGIN_CONTAINER, STATE, DriverPods
from e2e.kit.expected import Result

_HOST = STATE.rpartition("/")[0] + "/host"

# Prints what NVML says of every GPU with MIG, and the minors in the capability files of each MIG device.
_LOOK = f"""
import json, re
from dataclasses import asdict
from pathlib import Path
from dra_driver.hardware.nvml import NvmlHardware
from dra_driver.simulation.hardware import install

def capability(path):
    text = (Path({_HOST!r}) / "proc/driver/nvidia/capabilities" / path / "access").read_text()
    return int(re.search(r"DeviceFileMinor:\\s*(\\d+)", text)[1])

install(Path({STATE!r}))
hardware = NvmlHardware()
hardware.start()
found = []
for gpu in hardware.read_machine().gpus:
    for each in gpu.mig.instances if gpu.mig else ():
        folder = f"gpu{{gpu.minor}}/mig/gi{{each.id}}"
        found.append({{
            "minor": gpu.minor, "profile": each.profile_id, "start": each.placement.start,
            "uuids": [compute.uuid for compute in each.compute_instances],
            "capabilities": [
                capability(folder), *(capability(f"{{folder}}/ci{{compute.id}}") for compute in each.compute_instances)
            ],
        }})
modes = {{gpu.minor: gpu.mig.enabled for gpu in hardware.read_machine().gpus if gpu.mig}}
print(json.dumps({{"instances": found, "modes": modes}}))
"""


@dataclass(frozen=True, slots=True)
class Instance:
    """One GPU instance. ``capabilities``: minors of its node below /dev/nvidia-caps and of its compute instances'."""

    minor: int
    profile: int
    start: int
    uuids: tuple[str, ...]
    capabilities: frozenset[int]

    def is_of(self, name: MigName) -> bool:
        return (self.minor, self.profile, self.start) == (name.minor, name.profile_id, name.start)


@dataclass(frozen=True, slots=True)
class NodeMig:
    """``enabled``: minors of the GPUs in MIG mode."""

    instances: tuple[Instance, ...]
    enabled: frozenset[int]

    def of(self, result: Result) -> Instance:
        """The instance behind an allocated MIG device. AssertionError when the hardware does not have it."""
        name = parse_name(result.device)
        assert isinstance(name, MigName), f"{result.device} is no MIG device"
        found = [instance for instance in self.instances if instance.is_of(name)]
        assert len(found) == 1, f"{result.device} is not on the hardware, which has {self.instances}"
        return found[0]


def read_mig(pods: DriverPods, node: str) -> NodeMig:
    """Raises KubectlError."""
    pod = pods.plugin(node)["metadata"]["name"]
    answer = json.loads(pods.kubectl.execute(NAMESPACE, pod, PLUGIN_CONTAINER, ["python3", "-c", _LOOK]))
    instances = tuple(
        Instance(each["minor"], each["profile"], each["start"], tuple(each["uuids"]), frozenset(each["capabilities"]))
        for each in answer["instances"]
    )
    return NodeMig(instances, frozenset(int(minor) for minor, enabled in answer["modes"].items() if enabled))


def nvidia_smi(pods: DriverPods, node: str, *arguments: str) -> str:
    """nvidia-smi on the node, as its administrator would run it. Raises KubectlError."""
    pod = pods.plugin(node)["metadata"]["name"]
    command = ["python3", "-m", "dra_driver.simulation.hardware.smi", STATE, *arguments]
    return pods.kubectl.execute(NAMESPACE, pod, PLUGIN_CONTAINER, command)


@contextlib.contextmanager
def partitioned(pods: DriverPods, node: str, profiles: Sequence[int], *gpus: int) -> Iterator[None]:
    """MIG devices that the node's administrator made, of the profiles with these ids, on some GPUs or on all."""
    where = ("-i", ",".join(map(str, gpus))) if gpus else ()
    nvidia_smi(pods, node, *where, "-mig", "1")
    try:
        nvidia_smi(pods, node, "mig", *where, "-cgi", ",".join(map(str, profiles)), "-C")
        yield
    finally:
        if read_mig(pods, node).instances:
            nvidia_smi(pods, node, "mig", *where, "-dci")
            nvidia_smi(pods, node, "mig", *where, "-dgi")
        nvidia_smi(pods, node, *where, "-mig", "0")
