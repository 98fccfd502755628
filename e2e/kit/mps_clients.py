"""Pods with a simulated CUDA client in them: one that counts for as long as nobody interrupts it, and single tries.

The client is a shell script of the node's file tree; with MPS the pipe directory is all that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dra_driver.kube.interface import Obj
from e2e.kit.driver_pods import STATE
from e2e.kit.kubectl import KubectlError
from e2e.kit.space import Space, container_ids
from e2e.kit.waiting import NotYet, eventually
from e2e.kit.workloads import Container, Use, pod

_TREE = STATE.rpartition("/")[0] + "/host"
_PROGRAM = "/usr/local/bin/simulated-cuda-client"
_FILES: Mapping[str, str] = {_PROGRAM: f"{_TREE}/usr/bin/simulated-cuda-client"}
_COUNT = "/tmp/count"
_STEP_SECONDS = 20.0


def client_pod(name: str, *uses: Use, limits: Mapping[str, str] | None = None, node: str = "") -> Obj:
    """Its process is the client: where that ends, the kubelet starts the container again and counts it."""
    command = ("sh", _PROGRAM, "--count", _COUNT, "--interval", "0.1")
    container = Container(limits=limits, command=command, host_files=_FILES)
    return pod(name, *uses, containers=(container,), node=node)


def ask_daemon(space: Space, name: str, command: str, container: str = "main") -> str:
    """What the control daemon of a container answers. Raises KubectlError."""
    program = ["sh", "-c", f"echo {command} | nvidia-cuda-mps-control"]
    return space.kubectl.execute(space.namespace, name, container, program).strip()


def try_allocating(
    space: Space, name: str, size: str, container: str = "main", *, variables: Sequence[str] = ()
) -> str:
    """A second process of the container allocates that much, with its environment changed by ``variables``. Empty when
    it may, else what it was told."""
    try:
        command = ["env", *variables, "sh", _PROGRAM, "--allocate", size]
        space.kubectl.execute(space.namespace, name, container, command)
    except KubectlError as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class Counting:
    """A client that has counted so far, in a container that is still the same."""

    space: Space
    name: str
    before: Mapping[str, tuple[str, int]]

    @classmethod
    def begin(cls, space: Space, name: str) -> Counting:
        ready = space.wait_ready(name)[name]
        counting = cls(space, name, container_ids(ready))
        counting.check_goes_on()
        return counting

    def check_goes_on(self) -> None:
        """It was never interrupted, and it still counts."""
        seen = self._count()

        def look() -> None:
            if (now := self._count()) <= seen:
                raise NotYet(f"the client of {self.name} is at {now}, as it was")

        eventually(look, _STEP_SECONDS)
        now = container_ids(self.space.pods()[self.name])
        assert now == self.before, f"the client of {self.name} was interrupted: {self.before} became {now}"

    def _count(self) -> int:
        output = self.space.kubectl.execute(self.space.namespace, self.name, "main", ["cat", _COUNT])
        return int(output or 0)  # empty while it is written
