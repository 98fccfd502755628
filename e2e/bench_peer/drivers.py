"""The two drivers: which processes each is made of, with command line and environment. Pure.

Both get the same paths, the administrator's kubeconfig, and nothing that is not needed: no metrics, no health port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from e2e.bench_peer.settings import MPS, Setting
from tests.bench.node import AS_IN_THE_IMAGE

CDI_FOLDER = "/var/run/cdi"
HOOK = "usr/bin/nvidia-cdi-hook"  # below the driver's root
NAMESPACE = "default"
OUR_ENVIRONMENT = {**AS_IN_THE_IMAGE, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": ""}  # bytecode is on disk


class Side(StrEnum):
    """Whose figure it is."""

    PEER = "peer"
    OURS = "ours"


@dataclass(frozen=True, slots=True)
class Program:
    """A process to start on the node; ``name`` is that of its log."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a driver finds on the node."""

    node: str
    driver_root: str
    kubeconfig: str


class Driver(Protocol):
    """How one of the two is started."""

    @property
    def side(self) -> Side: ...

    def plugin(self, setting: Setting, around: Surroundings) -> Program:
        """The process on the node that serves the kubelet."""
        ...

    def others(self, setting: Setting, around: Surroundings) -> tuple[Program, ...]:
        """What it needs besides."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A driver with NVIDIA's command line (its cmd/gpu-kubelet-plugin/main.go). It publishes by itself."""

    program: Path
    side: Side = Side.PEER

    def plugin(self, setting: Setting, around: Surroundings) -> Program:
        command = [
            str(self.program),
            *_common(around),
            f"--nvidia-cdi-hook-path={around.driver_root}/{HOOK}",
            "--image-name=none",  # it asks for one, and starts it for MPS only
            *_gates(setting),
            *setting.options,
            *setting.peer_options,
        ]
        return Program("peer-plugin", tuple(command))

    def others(self, setting: Setting, around: Surroundings) -> tuple[Program, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Ours:
    """This project's processes; ``programs`` is the folder of its commands."""

    programs: Path
    side: Side = Side.OURS

    def plugin(self, setting: Setting, around: Surroundings) -> Program:
        options = [*_common(around), f"--host-root={around.driver_root}", *_gates(setting), *setting.options]
        return self._program("plugin", "gpu-dra-kubelet-plugin", options)

    def others(self, setting: Setting, around: Surroundings) -> tuple[Program, ...]:
        options = [f"--kubeconfig={around.kubeconfig}", f"--namespace={NAMESPACE}", *_gates(setting), *setting.options]
        controller = self._program("controller", "gpu-dra-controller", options)
        if setting is not MPS:
            return (controller,)
        roots = [*_roots(around), f"--host-root={around.driver_root}"]
        return (controller, self._program("supervisor", "gpu-dra-mps-supervisor", roots))

    def _program(self, name: str, command: str, options: list[str]) -> Program:
        return Program(name, (str(self.programs / command), *options), OUR_ENVIRONMENT)


def _common(around: Surroundings) -> list[str]:
    return [
        f"--node-name={around.node}",
        f"--namespace={NAMESPACE}",
        f"--kubeconfig={around.kubeconfig}",
        f"--cdi-root={CDI_FOLDER}",
        *_roots(around),
    ]


def _roots(around: Surroundings) -> list[str]:
    return [f"--nvidia-driver-root={around.driver_root}", f"--container-driver-root={around.driver_root}"]


def _gates(setting: Setting) -> list[str]:
    return [f"--feature-gates={','.join(setting.gates)}"]
