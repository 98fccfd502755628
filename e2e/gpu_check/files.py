"""Driver files, container edits and nvidia-smi, each against what the node really has."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dra_driver.cdi.driver_files import DriverFiles, find_driver_files
from dra_driver.cdi.mig_capabilities import read_mig_capabilities
from dra_driver.cdi.spec import ContainerEdits, Device, DeviceNode, Spec, problems
from dra_driver.hardware.model import Gpu
from e2e.gpu_check.facts import Difference, Facts, NotHere, without_uuids
from e2e.gpu_check.side import Side
from kubelet_plugin.hardware.setup import build_edits
from kubelet_plugin.node.hardware import driver_root

_OURS = "our driver"
_FRONTEND_MAJOR = 195  # Documentation/admin-guide/devices.txt of Linux
_SMI_SECONDS = 15
_SMI_COLUMNS = ("index", "uuid", "name", "pci.bus_id", "memory.total", "driver_version", "compute_cap")
_DRIVER_LIBRARY = re.compile(r"(libcuda|libnvidia-[\w-]+|libnvcuvid|libnvoptix)\.so\.(\S+)")


def driver_files(side: Side) -> Facts:
    """The libraries and programs that are found, without the folder: each distribution has its own."""
    found = _found(side)
    facts = {"driver version": found.version}
    facts |= {each.stem: ", ".join(sorted(name for name, _ in each.links)) or "no link" for each in found.libraries}
    facts |= {f"program {os.path.basename(each.path)}": "there" for each in found.files if "/bin/" in each.path}
    facts |= {f"data {each.path}": "there" for each in found.files if "/bin/" not in each.path}
    return facts


def unlike_loaded(side: Side) -> tuple[Difference, ...]:
    """The libnvidia-ml that this process has loaded, and the libraries of the linker's cache, against those found."""
    found = _found(side)
    real = {os.path.realpath(driver_root(side.spec).visible_path(each.source)) for each in found.libraries}
    loaded = _loaded_nvml(side.maps)
    wrong = [
        Difference("the libnvidia-ml that is loaded", path, "not among the libraries found", _OURS)
        for path in loaded
        if os.path.realpath(path) not in real
    ]
    if side.driver_root == Path("/"):
        names = {each.name for each in found.libraries}
        wrong += [
            Difference(f"{name} in the linker's cache", path, "not found", _OURS)
            for name, path in _cached_libraries(found.version)
            if name not in names
        ]
    return tuple(wrong)


def _found(side: Side) -> DriverFiles:
    return find_driver_files(driver_root(side.spec), side.machine.driver_version)


def _loaded_nvml(maps: Path) -> list[str]:
    """Empty where the library is no file, as the simulated one."""
    lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.partition("/")[2] for line in lines if "libnvidia-ml.so" in line}
    return sorted(f"/{path}" for path in paths)


def _cached_libraries(version: str) -> Iterator[tuple[str, str]]:
    """Of this driver version and 64 bits; some machines have the 32-bit libraries as well."""
    listed = _output(["ldconfig", "-p"]) if shutil.which("ldconfig") else ""
    for line in listed.splitlines():
        path = line.rpartition(" => ")[2].strip()
        real = os.path.realpath(path)
        match = _DRIVER_LIBRARY.fullmatch(os.path.basename(real))
        if match and match[2] == version and ("x86-64" in line or "AArch64" in line):
            yield os.path.basename(real), path


def edits(side: Side) -> Facts:
    """Device nodes and environment of a container with each GPU and MIG device."""
    facts = {f"every container, {what}": answer for what, answer in _told(_made(side).common)}
    for name, each in _made(side).devices.items():
        facts |= {f"{name}, {what}": answer for what, answer in _told(each)}
    return facts


def unlike_node(side: Side) -> tuple[Difference, ...]:
    """Nodes, mounts and hooks of those edits that are not there, or are another device than the edits say."""
    made = _made(side)
    devices = tuple(Device(f"device-{number}", each) for number, each in enumerate(made.devices.values()))
    spec = Spec("k8s.gpu.nvidia.com/claim", devices, made.common)
    wrong = [Difference("CDI file", problem, "refused by a runtime", _OURS) for problem in problems(spec)]
    majors = _majors(side.host_root)
    for container in (made.common, *made.devices.values()):
        for node in container.device_nodes:
            wrong += _wrong_node(side, node, majors)
        wrong += [
            Difference(f"mount {each.container_path}", "not there", each.host_path, _OURS)
            for each in container.mounts
            if not _here(side, each.host_path).exists()
        ]
        wrong += [
            Difference(f"hook {each.name}", "not a program", each.path, _OURS)
            for each in container.hooks
            if not os.access(_here(side, each.path), os.X_OK)
        ]
    return tuple(dict.fromkeys(wrong))


@dataclass(frozen=True, slots=True)
class _Made:
    common: ContainerEdits
    devices: dict[str, ContainerEdits]


def _made(side: Side) -> _Made:
    source = build_edits(side.spec)
    devices = {f"gpu-{gpu.minor}": source.gpu(gpu) for gpu in side.machine.gpus}
    for gpu in side.machine.gpus:
        for name, profile, nodes in _mig_nodes(side, gpu):
            parent = source.mig_parent(gpu, profile)
            devices[name] = ContainerEdits(device_nodes=(*parent.device_nodes, *nodes))
    return _Made(source.common(side.machine.driver_version), devices)


def _mig_nodes(side: Side, gpu: Gpu) -> Iterator[tuple[str, str, tuple[DeviceNode, ...]]]:
    for instance in gpu.mig.instances if gpu.mig else ():
        for compute in instance.compute_instances:
            found = read_mig_capabilities(side.host_root, gpu.minor, instance.id, compute.id)
            name = f"gpu-{gpu.minor}, {instance.profile_name} at {instance.placement.start}, slice {compute.start}"
            yield name, instance.profile_name, found.device_nodes()


def _told(container: ContainerEdits) -> Iterator[tuple[str, str]]:
    capabilities = [node for node in container.device_nodes if "/nvidia-caps/" in node.path]
    if capabilities:  # their minors follow the ids of the instances
        yield "capability nodes", ", ".join(node.permissions for node in capabilities)
    for node in container.device_nodes:
        if node in capabilities:
            continue
        # Majors of the other nodes are given by the kernel, anew at each boot.
        major = str(node.major) if node.major == _FRONTEND_MAJOR else "its own major"
        yield node.path, f"{major}, {node.minor}, {node.permissions}"
    for variable in container.env:
        name, _, value = variable.partition("=")
        yield name, value


def _here(side: Side, host_path: str) -> Path:
    """Where this process finds a path of the host."""
    path = Path(host_path)
    return path if path.is_relative_to(side.driver_root) else side.host_root / host_path.lstrip("/")


def _wrong_node(side: Side, node: DeviceNode, majors: dict[str, int]) -> Iterator[Difference]:
    expected = _expected_major(node.path, majors)
    if expected is not None and expected != node.major:
        yield Difference(f"{node.path}, major", f"{expected} in /proc/devices", str(node.major), _OURS)
    if node.type:
        return  # with type and numbers a runtime makes the node: MIG capabilities, and simulated nodes
    path = _here(side, node.host_path or node.path)
    try:
        found = os.stat(path)
    except OSError as error:
        yield Difference(node.path, error.strerror or str(error), str(path), _OURS)
        return
    is_device = stat.S_ISCHR(found.st_mode)
    here = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if is_device else "no character device"
    if here != f"{node.major}:{node.minor}":
        yield Difference(node.path, here, f"{node.major}:{node.minor}", _OURS)


def _majors(host_root: Path) -> dict[str, int]:
    """Drivers of character devices, by name."""
    characters = (host_root / "proc/devices").read_text(encoding="ascii").partition("Block devices")[0]
    pairs = (line.split() for line in characters.splitlines())
    return {pair[1]: int(pair[0]) for pair in pairs if len(pair) == 2 and pair[0].isdecimal()}


def _expected_major(path: str, majors: dict[str, int]) -> int | None:
    name = os.path.basename(path)
    if name.startswith("nvidia-uvm"):
        return majors.get("nvidia-uvm")
    if name.startswith("nvidia-cap"):
        return majors.get("nvidia-caps")
    if name.startswith("nvidia"):
        return _FRONTEND_MAJOR
    return None


def smi_list(side: Side) -> Facts:
    """``nvidia-smi -L``, line by line."""
    lines = _output([_smi(side), "-L"]).splitlines()
    return {f"line {number}": without_uuids(line) for number, line in enumerate(lines, 1)}


def unlike_smi(side: Side) -> tuple[Difference, ...]:
    """What nvidia-smi says in its list and its query, against what the adapter read."""
    smi = _smi(side)
    listed = set(re.findall(r"UUID: ((?:GPU|MIG)-[0-9a-f-]+)", _output([smi, "-L"])))
    ours = {gpu.uuid for gpu in side.machine.gpus} | {
        compute.uuid
        for gpu in side.machine.gpus
        for instance in (gpu.mig.instances if gpu.mig else ())
        for compute in instance.compute_instances
    }
    wrong = [Difference("nvidia-smi -L lists", uuid, "not read", _OURS) for uuid in sorted(listed - ours)]
    wrong += [Difference("nvidia-smi -L lists", "not listed", uuid, _OURS) for uuid in sorted(ours - listed)]
    rows = _output([smi, f"--query-gpu={','.join(_SMI_COLUMNS)}", "--format=csv,noheader,nounits"]).splitlines()
    by_index = {str(gpu.index): gpu for gpu in side.machine.gpus}
    for row in rows:
        values = dict(zip(_SMI_COLUMNS, row.split(", "), strict=False))
        gpu = by_index.get(values["index"])
        if gpu is not None:
            wrong += _unlike_row(gpu, values, side.machine.driver_version)
    return tuple(wrong)


def _unlike_row(gpu: Gpu, values: dict[str, str], driver_version: str) -> Iterator[Difference]:
    expected = {
        "uuid": gpu.uuid,
        "name": gpu.product_name,
        "pci.bus_id": f"0000{gpu.pci_bus_id}".upper(),
        "memory.total": "[N/A]" if gpu.memory_bytes is None else str(gpu.memory_bytes >> 20),
        "driver_version": driver_version,
        "compute_cap": gpu.cuda_compute_capability,
    }
    for column, ours in expected.items():
        theirs = values.get(column, "no such column")
        if theirs.lower() != ours.lower():
            yield Difference(f"nvidia-smi, GPU {gpu.index}, {column}", theirs, ours, _OURS)


def _smi(side: Side) -> str:
    inside = side.driver_root / "usr/bin/nvidia-smi"
    found = str(inside) if os.access(inside, os.X_OK) else shutil.which("nvidia-smi")
    if found is None:
        raise NotHere(f"there is no nvidia-smi in {side.driver_root} nor in PATH")
    return found


def _output(command: list[str]) -> str:
    """What a program prints. NotHere when it does not run, with what it says."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotHere(f"{' '.join(command)} ended with {done.returncode}: {said[-1] if said else 'no word'}")
    return done.stdout
