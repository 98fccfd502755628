"""A container runtime without containers: resolves CDI names and says what a container would see.

Responsible for the part of containerd that decides what is inside: spec-level edits once, device edits in order, a
later edit winning over an earlier one and over the container's own, device numbers filled in from the host, one cgroup
rule per device node, and refusing what runc would refuse (a mount source or a hook that is not there). Nothing runs:
hooks are recorded, not executed. It relies on :mod:`runtime_cdi` for reading files, and on nothing that writes them.

Source of the rules: CNCF CDI pkg/cdi (container-edits, cache.InjectDevices) and the OCI runtime specification.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dra_driver.simulation.runtime.cdi import NEWEST_VERSION, CdiIndex, CdiSpec, Json, scan


class ContainerCreateError(Exception):
    """The container cannot be created; the text is what the runtime would report to the kubelet."""


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device node inside the container (OCI LinuxDevice) and the host's node behind it."""

    path: str
    host_path: str
    type: str  # "c", "b", "u" or "p"
    major: int
    minor: int
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """A device cgroup rule that lets the container use a node (OCI LinuxDeviceCgroup, allow=true)."""

    type: str
    major: int
    minor: int
    access: str


@dataclass(frozen=True, slots=True)
class Mount:
    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    name: str  # createContainer, ...
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, slots=True)
class NetDevice:
    host_interface: str
    name: str


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """What the kubelet asks of the runtime (CRI CreateContainer), as far as it matters here."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    cdi_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerView:
    """What a started container sees: an OCI spec cut down to what CDI can change."""

    namespace: str
    pod: str
    pod_uid: str
    container: str
    cdi_devices: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    device_nodes: tuple[DeviceNode, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    net_devices: tuple[NetDevice, ...] = ()
    additional_gids: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; key order is field order."""
        return dataclasses.asdict(self)


class ContainerRuntime:
    """Creates container views from CDI folders, the last one having the highest priority. Thread-safe."""

    def __init__(self, cdi_dirs: Sequence[Path], *, newest_cdi_version: str = NEWEST_VERSION) -> None:
        self._cdi_dirs = tuple(cdi_dirs)
        self._newest = newest_cdi_version
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], ContainerView] = {}

    def create(self, request: ContainerRequest) -> ContainerView:
        """Resolves and applies all edits. Raises :class:`ContainerCreateError`; then nothing was started."""
        view = inject(request, scan(self._cdi_dirs, self._newest))
        with self._lock:
            self._running[(request.pod_uid, request.container)] = view
        return view

    def stop(self, pod_uid: str, container: str) -> None:
        """Stops and removes one container; nothing happens when it is not there."""
        with self._lock:
            self._running.pop((pod_uid, container), None)

    def running(self, pod_uid: str) -> tuple[ContainerView, ...]:
        """Views of the containers of a pod that were created and not removed."""
        with self._lock:
            return tuple(view for (uid, _), view in self._running.items() if uid == pod_uid)

    def remove(self, pod_uid: str) -> int:
        """Stops and removes all containers of a pod; how many there were."""
        with self._lock:
            keys = [key for key in self._running if key[0] == pod_uid]
            for key in keys:
                del self._running[key]
            return len(keys)


def inject(request: ContainerRequest, index: CdiIndex) -> ContainerView:
    """The container that ``request`` becomes with the devices of ``index``. Raises :class:`ContainerCreateError`."""
    unresolved = [name for name in request.cdi_devices if name not in index.devices]
    if unresolved:
        details = "".join(f"; {path.name}: {error}" for path, error in sorted(index.errors.items()))
        raise ContainerCreateError(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(unresolved)}{details}"
        )
    edits: list[Json] = []
    specs: list[CdiSpec] = []
    for name in request.cdi_devices:
        device = index.devices[name]
        if device.spec not in specs:
            specs.append(device.spec)
            edits.append(device.spec.edits)
        edits.append(device.edits)
    return _apply(request, edits)


def _apply(request: ContainerRequest, edits: Sequence[Json]) -> ContainerView:
    env = dict(request.env)
    nodes: dict[str, DeviceNode] = {}
    rules: list[DeviceRule] = []
    mounts: dict[str, Mount] = {}
    hooks: list[Hook] = []
    net_devices: list[NetDevice] = []
    gids: list[int] = []
    for edit in edits:
        for variable in edit.get("env", ()):
            name, _, value = variable.partition("=")
            env[name] = value
        for raw in edit.get("deviceNodes", ()):
            node = _device_node(raw)
            nodes.pop(node.path, None)  # a later edit replaces the node and comes last
            nodes[node.path] = node
            if node.type in ("b", "c"):
                rules.append(DeviceRule(node.type, node.major, node.minor, node.permissions))
        for raw in edit.get("mounts", ()):
            mount = _mount(raw)
            mounts[mount.container_path] = mount
        hooks.extend(_hook(raw) for raw in edit.get("hooks", ()))
        net_devices.extend(NetDevice(raw["hostInterfaceName"], raw["name"]) for raw in edit.get("netDevices", ()))
        gids.extend(gid for gid in edit.get("additionalGids", ()) if gid and gid not in gids)
    return ContainerView(
        namespace=request.namespace,
        pod=request.pod,
        pod_uid=request.pod_uid,
        container=request.container,
        cdi_devices=request.cdi_devices,
        env=env,
        device_nodes=tuple(nodes.values()),
        device_rules=tuple(dict.fromkeys(rules)),
        # Parents before children, as the library sorts mounts, so that none hides another.
        mounts=tuple(sorted(mounts.values(), key=lambda mount: mount.container_path.rstrip("/").count("/"))),
        hooks=tuple(hooks),
        net_devices=tuple(net_devices),
        additional_gids=tuple(gids),
    )


def _device_node(raw: Json) -> DeviceNode:
    host_path = raw.get("hostPath") or raw["path"]
    kind, major, minor = raw.get("type") or "", raw.get("major") or 0, raw.get("minor") or 0
    file_mode = raw.get("fileMode")
    if not kind or (major == 0 and kind != "p"):
        found_kind, found_major, found_minor, found_mode = _host_node(host_path)
        if kind and kind != found_kind:
            raise ContainerCreateError(
                f"CDI device {raw['path']!r}: {host_path} is of type {found_kind!r}, not {kind!r}"
            )
        kind = found_kind
        if major == 0 and kind != "p":
            major, minor = found_major, found_minor
        file_mode = file_mode if file_mode is not None else found_mode
    return DeviceNode(
        path=raw["path"],
        host_path=host_path,
        type=kind,
        major=major,
        minor=minor,
        file_mode=file_mode,
        permissions=raw.get("permissions") or "rwm",
        uid=raw.get("uid"),
        gid=raw.get("gid"),
    )


def _host_node(path: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError as error:
        raise ContainerCreateError(f"failed to stat CDI host device {path!r}: {error.strerror}") from None
    kinds = ((stat.S_ISCHR, "c"), (stat.S_ISBLK, "b"), (stat.S_ISFIFO, "p"))
    for is_kind, kind in kinds:
        if is_kind(found.st_mode):
            return kind, os.major(found.st_rdev), os.minor(found.st_rdev), stat.S_IMODE(found.st_mode)
    raise ContainerCreateError(f"failed to stat CDI host device {path!r}: not a device node")


def _mount(raw: Json) -> Mount:
    if raw.get("type", "") in ("", "bind") and not os.path.exists(raw["hostPath"]):
        raise ContainerCreateError(
            f"error mounting {raw['hostPath']!r} to rootfs at {raw['containerPath']!r}: no such file or directory"
        )
    return Mount(raw["hostPath"], raw["containerPath"], raw.get("type") or "", tuple(raw.get("options") or ()))


def _hook(raw: Json) -> Hook:
    if not os.path.exists(raw["path"]):
        raise ContainerCreateError(
            f"error running {raw['hookName']} hook: fork/exec {raw['path']}: no such file or directory"
        )
    return Hook(
        raw["hookName"], raw["path"], tuple(raw.get("args") or ()), tuple(raw.get("env") or ()), raw.get("timeout")
    )
