"""The container edits of this node's GPUs: looks at the node, chooses the layout, remembers the answer.

:class:`DriverEdits` is what the prepare engine uses; ``driver_files`` and ``device_nodes`` look, ``layouts`` decides.
The answer is remembered until a file or folder it came from changes (identity, and time of change where the content
counts), never by time: one kept for five minutes gave containers without device nodes after boot (NVIDIA's issue
#1380). Finding the files takes some ten milliseconds, asking whether they changed well under one.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dra_driver.cdi import layouts
from dra_driver.cdi.device_nodes import CONTROL_NODES, SIMULATED_TABLE, control_nodes, gpu_nodes
from dra_driver.cdi.driver_files import find_driver_files, mounted_paths, watched_paths
from dra_driver.cdi.roots import DriverRoots, Root
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.hardware.model import Gpu

# File times are as coarse as the kernel's tick. What changed this recently may change again without a new time.
_SETTLED_NS = 50_000_000

_FileState = tuple[int, int, int, int] | None  # device, inode, time of change, device number; None: nothing there


@dataclass(frozen=True, slots=True)
class _Paths:
    """What an answer came from, as this process sees it. Of ``mounted`` files the content does not matter."""

    looked_at: tuple[str, ...]
    mounted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Remembered:
    driver_version: str
    paths: _Paths
    states: tuple[_FileState, ...]
    edits: ContainerEdits


class DriverEdits:
    """Edits for the containers of this node. Thread-safe; looks at files only when asked.

    ``hooks``: where ``nvidia-cdi-hook`` may be, best first, each as this process and the host see it, for example
    ``Root(Path("/host-root/usr/bin/nvidia-cdi-hook"), "/usr/bin/nvidia-cdi-hook")``.
    ``architecture``: the machine's (``x86_64``), which is part of Debian's library folder.
    """

    def __init__(self, roots: DriverRoots, hooks: Sequence[Root] = (), *, architecture: str = "") -> None:
        self._roots = roots
        self._hooks = tuple(hooks)
        self._loader_folders = ("/usr/lib64", f"/usr/lib/{architecture or platform.machine()}-linux-gnu")
        self._lock = threading.Lock()
        self._remembered: _Remembered | None = None

    def common(self, driver_version: str) -> ContainerEdits:
        """What every GPU container gets, once. ``driver_version`` as NVML says it.

        Raises ``HardwareError``, retryable, when the driver's libraries or its control nodes are missing.
        """
        with self._lock:
            known = self._remembered
            if known and known.driver_version == driver_version and _states(known.paths) == known.states:
                return known.edits
            self._remembered = None
            edits, paths = self._find(driver_version)
            states = _states(paths)
            newest = max((state[2] for state in states if state), default=0)
            if time.time_ns() - newest > _SETTLED_NS:
                self._remembered = _Remembered(driver_version, paths, states, edits)
            return edits

    def gpu(self, gpu: Gpu) -> ContainerEdits:
        """The device nodes of one whole GPU. Raises ``HardwareError``, retryable, when its node is missing."""
        return layouts.for_gpu(gpu, gpu_nodes(self._roots, gpu), self._hook_path())

    def mig_parent(self, gpu: Gpu, profile: str) -> ContainerEdits:
        """What a MIG device of ``gpu`` needs of its parent: the GPU's node, and its DRM nodes where ``profile`` draws.

        The nodes of the MIG device itself are ``mig_capabilities``' matter. Raises ``HardwareError`` as :meth:`gpu`.
        """
        nodes = gpu_nodes(self._roots, gpu)
        return layouts.for_gpu(gpu, nodes if _draws(profile) else nodes[:1], self._hook_path())

    def _find(self, driver_version: str) -> tuple[ContainerEdits, _Paths]:
        """The edits, and every path they depend on."""
        root = self._roots.driver
        files = find_driver_files(root, driver_version)
        nodes = control_nodes(self._roots)
        hook_path = self._hook_path()
        if hook_path:
            edits = layouts.with_hooks(files, nodes, root, hook_path)
        else:
            edits = layouts.hook_free(files, nodes, root, self._loader_folders)
        dev = self._roots.dev()
        paths = [
            *(root.visible_path(path) for path in watched_paths(files)),
            root.visible_path("/dev"),
            *(dev.visible_path(f"/dev/{name}") for name in (*CONTROL_NODES, SIMULATED_TABLE)),
            *(hook.visible for hook in self._hooks),
        ]
        mounted = (root.visible_path(path) for path in mounted_paths(files))
        return edits, _Paths(tuple(map(str, paths)), tuple(map(str, mounted)))

    def _hook_path(self) -> str | None:
        """The host's path of the first hook that is there."""
        return next((hook.host for hook in self._hooks if os.access(hook.visible, os.X_OK)), None)


def _draws(profile: str) -> bool:
    """Whether a MIG profile has graphics: ``1g.24gb+gfx`` (NVIDIA MIG User Guide, profiles of RTX PRO)."""
    return "+gfx" in profile


def _states(paths: _Paths) -> tuple[_FileState, ...]:
    return (*map(_state, paths.looked_at), *map(_identity, paths.mounted))


def _identity(path: str) -> _FileState:
    found = _state(path)
    return None if found is None else (found[0], found[1], 0, found[3])


def _state(path: str) -> _FileState:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_rdev
