"""The CDI specification as frozen values: what one file says, which version it needs, whether a runtime takes it.

Pure. ``encode`` and ``decode`` turn these values into files and back, ``store`` keeps the files, ``edits`` fills them.
The rules are those of the CNCF CDI library (specs-go/config.go; pkg/cdi: container-edits.go, version.go; pkg/parser):
runtimes refuse a whole file for one unknown field, one bad name or a version newer than they know, so a spec is checked
before it is written and says the lowest version that has what it uses. intelRdt is not modelled: GPUs do not use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

from dra_driver.errors import StateError

HOOK_NAMES = frozenset(("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"))
NODE_TYPES = frozenset(("b", "c", "u", "p"))
KNOWN_VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")

_VENDOR = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_ENV = re.compile(r"[^=\0]+=[^\0]*")


class SpecError(StateError):
    """A CDI spec or file that a container runtime would refuse; the message names each place."""

    reason = "InvalidCdiSpec"


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device node in the container. Without ``major`` or ``type`` the runtime reads them from ``host_path``."""

    path: str
    host_path: str = ""  # empty: the same as path
    type: str = ""  # "b", "c", "u", "p"
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""  # cgroup access, of "rwm"; the runtime's default is all three
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """An OCI hook; ``path`` is a path on the host."""

    name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None  # seconds


@dataclass(frozen=True, slots=True)
class NetDevice:
    host_interface_name: str
    name: str


@dataclass(frozen=True, slots=True)
class ContainerEdits:
    """What is done to a container. A later edit of the same variable, node or mount point wins.

    The hash is made once: edits of a driver's many files are looked up in every prepare.
    """

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    hooks: tuple[Hook, ...] = ()
    mounts: tuple[Mount, ...] = ()
    additional_gids: tuple[int, ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(_fields(self)))

    def __hash__(self) -> int:
        return self._hash

    def is_empty(self) -> bool:
        return not (
            self.env or self.device_nodes or self.net_devices or self.hooks or self.mounts or self.additional_gids
        )


def join_edits(*edits: ContainerEdits) -> ContainerEdits:
    """One after the other, field by field."""
    if sum(not each.is_empty() for each in edits) == 1:
        return next(each for each in edits if not each.is_empty())
    return ContainerEdits(*(tuple(chain.from_iterable(found)) for found in zip(*map(_fields, edits), strict=True)))


def _fields(edits: ContainerEdits) -> tuple[tuple[Any, ...], ...]:
    return (edits.env, edits.device_nodes, edits.net_devices, edits.hooks, edits.mounts, edits.additional_gids)


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    edits: ContainerEdits
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """One CDI file. ``edits`` apply once to a container that gets any of the devices."""

    kind: str  # "vendor/class"
    devices: tuple[Device, ...]
    edits: ContainerEdits = ContainerEdits()
    annotations: tuple[tuple[str, str], ...] = ()

    def device_id(self, device_name: str) -> str:
        """The fully qualified name that the kubelet hands to the runtime."""
        return f"{self.kind}={device_name}"


def minimum_version(spec: Spec) -> str:
    """The lowest CDI version that has every feature ``spec`` uses (pkg/cdi/version.go)."""
    edits = [spec.edits, *(device.edits for device in spec.devices)]
    if any(edit.net_devices for edit in edits):
        return "1.1.0"
    if any(edit.additional_gids for edit in edits):
        return "0.7.0"
    if spec.annotations or any(device.annotations for device in spec.devices) or "." in spec.kind.partition("/")[2]:
        return "0.6.0"
    if any(node.host_path for edit in edits for node in edit.device_nodes):
        return "0.5.0"
    if any(not device.name[:1].isalpha() for device in spec.devices):
        return "0.5.0"
    if any(mount.type for edit in edits for mount in edit.mounts):
        return "0.4.0"
    return "0.3.0"


def problems(spec: Spec) -> tuple[str, ...]:
    """Everything for which a runtime would refuse ``spec``, each with its place; empty when there is nothing."""
    return tuple(_spec_problems(spec))


def check(spec: Spec) -> None:
    """Raise :class:`SpecError` with all :func:`problems`."""
    found = problems(spec)
    if found:
        raise SpecError(f"CDI spec of kind {spec.kind!r}: {'; '.join(found)}")


def _spec_problems(spec: Spec) -> Iterator[str]:
    vendor, slash, class_ = spec.kind.partition("/")
    if not slash or not _VENDOR.fullmatch(vendor) or not _CLASS.fullmatch(class_):
        yield f"kind: {spec.kind!r} is not vendor/class"
    if not spec.devices:
        yield "devices: a spec has at least one device"
    seen: set[str] = set()
    for position, device in enumerate(spec.devices):
        where = f"devices[{position}]"
        if not _DEVICE.fullmatch(device.name):
            yield f"{where}.name: {device.name!r} is not a device name"
        if device.name in seen:
            yield f"{where}.name: {device.name!r} is there twice"
        seen.add(device.name)
        if device.edits.is_empty():
            yield f"{where}.containerEdits: empty"
        yield from (f"{where}.containerEdits{problem}" for problem in _edit_problems(device.edits))
    yield from (f"containerEdits{problem}" for problem in _edit_problems(spec.edits))


@lru_cache(maxsize=256)
def _edit_problems(edits: ContainerEdits) -> tuple[str, ...]:
    """Remembered, since the edits that come from the driver's files are the same in every claim."""
    return tuple(_find_edit_problems(edits))


def _find_edit_problems(edits: ContainerEdits) -> Iterator[str]:
    yield from _env_problems(edits.env, ".env")
    for position, node in enumerate(edits.device_nodes):
        yield from _node_problems(node, f".deviceNodes[{position}]")
    for position, net in enumerate(edits.net_devices):
        if not net.host_interface_name or not net.name:
            yield f".netDevices[{position}]: needs hostInterfaceName and name"
    for position, hook in enumerate(edits.hooks):
        yield from _hook_problems(hook, f".hooks[{position}]")
    for position, mount in enumerate(edits.mounts):
        for key, path in (("hostPath", mount.host_path), ("containerPath", mount.container_path)):
            if not path.startswith("/"):
                yield f".mounts[{position}].{key}: {path!r} is not an absolute path"
    for position, gid in enumerate(edits.additional_gids):
        if gid <= 0:
            yield f".additionalGids[{position}]: {gid} is not a group to add"


def _node_problems(node: DeviceNode, where: str) -> Iterator[str]:
    if not node.path.startswith("/"):
        yield f"{where}.path: {node.path!r} is not an absolute path"
    if node.host_path and not node.host_path.startswith("/"):
        yield f"{where}.hostPath: {node.host_path!r} is not an absolute path"
    if node.type and node.type not in NODE_TYPES:
        yield f"{where}.type: {node.type!r} is not one of b, c, p, u"
    if set(node.permissions) - set("rwm"):
        yield f"{where}.permissions: {node.permissions!r} has other letters than r, w, m"
    if node.major < 0 or node.minor < 0:
        yield f"{where}: device number {node.major}:{node.minor} is negative"


def _hook_problems(hook: Hook, where: str) -> Iterator[str]:
    if hook.name not in HOOK_NAMES:
        yield f"{where}.hookName: {hook.name!r} is not one of {', '.join(sorted(HOOK_NAMES))}"
    if not hook.path.startswith("/"):
        yield f"{where}.path: {hook.path!r} is not an absolute path"
    yield from _env_problems(hook.env, f"{where}.env")


def _env_problems(env: tuple[str, ...], where: str) -> Iterator[str]:
    for position, variable in enumerate(env):
        if not _ENV.fullmatch(variable):
            yield f"{where}[{position}]: {variable!r} is not NAME=value"
