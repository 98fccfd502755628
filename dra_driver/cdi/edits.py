"""The container edits of this node's GPUs: looks at the node, chooses the form, remembers the answer.

:class:`DriverEdits` is what the prepare engine uses; ``driver_files`` and ``device_nodes`` look, ``forms`` decides.
The answer is remembered until a file or folder it came from changes (identity, and time of change where the content
counts), see ``file_states``. Finding the files takes some ten milliseconds, asking whether they changed half of one.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dra_driver.cdi import file_states, forms
from dra_driver.cdi.device_nodes import CONTROL_NODES, SIMULATED_TABLE, control_nodes, gpu_nodes
from dra_driver.cdi.driver_files import find_driver_files, mounted_paths, watched_paths
from dra_driver.cdi.file_states import FileState, Look, Watched, watched
from dra_driver.cdi.hooks import HookFinder, HookPlace, HookProgram
from dra_driver.cdi.roots import DriverRoots
from dra_driver.cdi.spec import ContainerEdits
from dra_driver.hardware.model import Gpu


@dataclass(frozen=True, slots=True)
class _Paths:
    """What an answer came from. Of ``mounted`` files the content does not matter."""

    looked_at: tuple[Watched, ...]
    mounted: tuple[Watched, ...]

    def states(self) -> tuple[FileState, ...]:
        look = Look()
        return (
            *map(look.state, self.looked_at),
            *map(look.identity, self.mounted),
        )


@dataclass(frozen=True, slots=True)
class _Remembered:
    driver_version: str
    program: HookProgram | None
    paths: _Paths
    states: tuple[FileState, ...]
    edits: ContainerEdits


class DriverEdits:
    """Edits for the containers of this node. Thread-safe; looks at files only when asked.

    ``hooks``: where ``nvidia-cdi-hook`` may be, best first. ``loaded_library``: the file that NVML was loaded from, as
    this process sees it. ``architecture``: the machine's (``x86_64``), which is part of Debian's library folder.
    """

    def __init__(
        self,
        roots: DriverRoots,
        hooks: Sequence[HookPlace] = (),
        *,
        loaded_library: Callable[[], Path | None] = lambda: None,
        architecture: str = "",
    ) -> None:
        architecture = architecture or platform.machine()
        self._roots = roots
        self._hooks = HookFinder(hooks, architecture)
        self._loaded_library = loaded_library
        self._loader_folders = ("/usr/lib64", f"/usr/lib/{architecture}-linux-gnu")
        self._lock = threading.Lock()
        self._remembered: _Remembered | None = None

    def common(self, driver_version: str) -> ContainerEdits:
        """What every GPU container gets, once. ``driver_version`` as NVML says it.

        Raises ``HardwareError``, retryable, when the driver's libraries or its control nodes are missing, or when there
        is a hook that cannot be used.
        """
        with self._lock:
            known, program = self._remembered, self._hooks.find()
            if (
                known
                and (known.driver_version, known.program) == (driver_version, program)
                and known.paths.states() == known.states
            ):
                return known.edits
            self._remembered = None
            edits, paths = self._find(driver_version, program)
            states = paths.states()
            if file_states.settled(states):
                self._remembered = _Remembered(driver_version, program, paths, states, edits)
            return edits

    def gpu(self, gpu: Gpu) -> ContainerEdits:
        """The device nodes of one whole GPU. Raises ``HardwareError``, retryable, when its node is missing."""
        return forms.for_gpu(gpu, gpu_nodes(self._roots, gpu), self._hooks.find())

    def mig_parent(self, gpu: Gpu, profile: str) -> ContainerEdits:
        """What a MIG device of ``gpu`` needs of its parent: the GPU's node, and its DRM nodes where ``profile`` draws.

        The nodes of the MIG device itself are ``mig_capabilities``' matter. Raises ``HardwareError`` as :meth:`gpu`.
        """
        nodes = gpu_nodes(self._roots, gpu)
        return forms.for_gpu(gpu, nodes if _draws(profile) else nodes[:1], self._hooks.find())

    def _find(self, driver_version: str, program: HookProgram | None) -> tuple[ContainerEdits, _Paths]:
        """The edits, and every path they depend on."""
        root = self._roots.driver
        files = find_driver_files(root, driver_version, self._loaded_folder)
        nodes = control_nodes(self._roots)
        if program is not None:
            edits = forms.with_hooks(files, nodes, root, program)
        else:
            edits = forms.hook_free(files, nodes, root, self._loader_folders)
        dev = self._roots.dev()
        looked_at = (
            *(watched(root, path) for path in watched_paths(files)),
            watched(root, "/dev"),
            *(watched(dev, f"/dev/{name}") for name in (*CONTROL_NODES, SIMULATED_TABLE)),
        )
        return edits, _Paths(looked_at, tuple(watched(root, path) for path in mounted_paths(files)))

    def _loaded_folder(self) -> str | None:
        """The folder, inside the driver root, that NVML was loaded from."""
        library, root = self._loaded_library(), self._roots.driver.visible
        if library is None or not library.is_relative_to(root):
            return None
        return f"/{library.parent.relative_to(root)}"


def _draws(profile: str) -> bool:
    """Whether a MIG profile has graphics: ``1g.24gb+gfx`` (NVIDIA MIG User Guide, profiles of RTX PRO)."""
    return "+gfx" in profile
