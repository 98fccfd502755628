"""NVML's life in this process, and the snapshot of all GPUs.

One initialisation for the life of the process: repeated init/shutdown cycles trip driver problems. NVML is
thread-safe, so readings need no lock of ours; ``start`` and ``stop`` do. A GPU that fails does not hide the others: it
is left out of the Machine and described as a :class:`GpuProblem`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.kernel_module import module_version as module_version_of
from dra_driver.hardware.model import Gpu, Machine
from dra_driver.hardware.nvml.binding import INIT_FLAG_NO_GPUS, call, query
from dra_driver.hardware.nvml.board import Board, read_board
from dra_driver.hardware.nvml.errors import DriverReplaced, NvmlCallError
from dra_driver.hardware.nvml.gpu import PciTopology, read_gpu
from dra_driver.hardware.nvml.library import find_library, load_driver_library, loaded_library
from dra_driver.hardware.nvml.mig import ProfileTables
from dra_driver.hardware.nvml.replaced import LibraryFile, explain, library_file
from dra_driver.hardware.sysfs import Sysfs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuProblem:
    """A GPU that NVML counts but that could not be read. UUID and bus id are known if it was read before."""

    index: int
    uuid: str | None
    pci_bus_id: str | None
    gone: bool  # NVML says that the GPU is lost
    message: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the hardware: what works, and what does not."""

    machine: Machine
    problems: tuple[GpuProblem, ...] = ()


class NvmlHardware:
    """The node's GPUs.

    ``driver_root``: folder that holds the driver's libraries; None for the process's own ("by soname").
    ``topology``: PCIe root and NUMA node of a bus id; the node's own sysfs by default.
    ``fresh_root``: where a container that starts now would find the driver root, if that is elsewhere: a driver that
    was mounted anew is not seen through a mount of the old one.
    ``module_version``: the kernel module's, None while none is loaded.
    """

    def __init__(
        self,
        *,
        driver_root: Path | None = None,
        topology: PciTopology | None = None,
        fresh_root: Path | None = None,
        module_version: Callable[[], str | None] | None = None,
    ) -> None:
        self._driver_root = driver_root
        self._topology = topology or Sysfs(Path("/"))
        self._fresh_root = fresh_root
        self._module_version = module_version or (lambda: module_version_of(Path("/")))
        self._loaded: LibraryFile | None = None
        self._lock = threading.Lock()
        self._started = False
        self._tables = ProfileTables()
        self._seen: dict[int, Gpu] = {}  # by NVML index: names a GPU that stopped answering

    def start(self) -> None:
        """Load the library and initialise NVML. A second start does nothing; a failed one may be tried again.

        HardwareUnavailable says which paths were looked for and what to do; DriverReplaced that another process could.
        """
        with self._lock:
            if self._started:
                return
            load_driver_library(self._driver_root)
            if self._loaded is None:
                self._loaded = library_file(loaded_library() or find_library(self._driver_root or Path("/")))
            try:
                call("nvmlInitWithFlags", INIT_FLAG_NO_GPUS)
            except HardwareError as error:
                said = self._explained(error)
                if said is error and isinstance(error, HardwareUnavailable):
                    raise
                if isinstance(said, HardwareUnavailable):
                    raise said from error
                raise HardwareUnavailable(f"NVML does not start: {said.message}", hint=said.hint) from error
            self._started = True

    def stop(self) -> None:
        """Shut NVML down. Stopping twice, or without a start, does nothing."""
        with self._lock:
            if not self._started:
                return
            self._started = False
            self._tables.forget()
            call("nvmlShutdown")

    def read_machine(self) -> Machine:
        """The GPUs that can be read; the others are logged. See :meth:`read` for the whole answer."""
        reading = self.read()
        for problem in reading.problems:
            logger.warning("left out a GPU that cannot be read: %s", problem.message, extra={"gpu": problem.index})
        return reading.machine

    def read(self) -> Reading:
        """Read everything anew. HardwareError when not even the list of GPUs can be had."""
        try:
            reading = self._read()
        except HardwareError as error:
            said = self._explained(error)
            if said is error:
                raise
            raise said from error
        if reading.problems and not reading.machine.gpus:
            # Perhaps every GPU is lost because its kernel module was taken away under this process.
            said = self._explained(HardwareUnavailable(reading.problems[0].message))
            if isinstance(said, DriverReplaced):
                raise said
        return reading

    def _read(self) -> Reading:
        gpus: list[Gpu] = []
        problems: list[GpuProblem] = []
        driver_version = str(call("nvmlSystemGetDriverVersion"))
        cuda_driver_version = int(query("nvmlSystemGetCudaDriverVersion_v2") or 0)
        for index in range(int(call("nvmlDeviceGetCount"))):
            try:
                handle = call("nvmlDeviceGetHandleByIndex", index, device=f"GPU {index}")
                gpu = read_gpu(index, handle, self._topology, self._tables)
            except HardwareUnavailable:
                raise
            except HardwareError as error:
                problems.append(self._problem(index, error))
            else:
                self._seen[index] = gpu
                gpus.append(gpu)
        gpus.sort(key=lambda gpu: gpu.pci_bus_id)
        return Reading(Machine(driver_version, cuda_driver_version, tuple(gpus)), tuple(problems))

    def read_board(self, gpu: Gpu) -> Board:
        """What only a machine description wants to know about a GPU that was read before."""
        return read_board(call("nvmlDeviceGetHandleByUUID", gpu.uuid, device=gpu.uuid), gpu.uuid)

    def _explained(self, error: HardwareError) -> HardwareError:
        roots = (self._driver_root or Path("/"), self._fresh_root)
        there = (library_file(find_library(root)) for root in roots if root is not None)
        return explain(error, self._loaded, [file for file in there if file is not None], self._module_version())

    def _problem(self, index: int, error: HardwareError) -> GpuProblem:
        seen = self._seen.get(index)
        return GpuProblem(
            index=index,
            uuid=seen.uuid if seen else None,
            pci_bus_id=seen.pci_bus_id if seen else None,
            gone=isinstance(error, NvmlCallError) and error.gpu_is_gone,
            message=str(error),
        )
