"""Reads CDI files the way a container runtime does: strictly, and without any code of the writer.

Responsible for one question: given the spec folders, which qualified device names can be injected, and with what edits?
The rules are those of the CNCF CDI library as containerd and CRI-O use it (pkg/cdi: cache, spec, version, parser):
folders in rising priority, only ``*.json`` and ``*.yaml`` directly inside, a file with one unknown field or a newer
version is refused as a whole, and one device defined twice at the same priority cannot be resolved at all.

Unlike the library, which follows file events, every :func:`scan` reads the folders anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dra_driver.yaml_loader import SAFE_LOADER

Json = dict[str, Any]
Version = tuple[int, int, int]

NEWEST_VERSION = "1.1.0"
_KNOWN_VERSIONS: tuple[Version, ...] = (
    (0, 3, 0),
    (0, 4, 0),
    (0, 5, 0),
    (0, 6, 0),
    (0, 7, 0),
    (0, 8, 0),
    (1, 0, 0),
    (1, 1, 0),
)
HOOK_NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_NODE_TYPES = ("", "b", "c", "u", "p")

_VENDOR = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")

_SPEC_FIELDS = {"cdiVersion", "kind", "annotations", "devices", "containerEdits"}
_DEVICE_FIELDS = {"name", "annotations", "containerEdits"}
_EDIT_FIELDS = {"env", "deviceNodes", "netDevices", "hooks", "mounts", "intelRdt", "additionalGids"}
_NODE_FIELDS = {"path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"}
_MOUNT_FIELDS = {"hostPath", "containerPath", "options", "type"}
_HOOK_FIELDS = {"hookName", "path", "args", "env", "timeout"}
_NET_FIELDS = {"hostInterfaceName", "name"}
_RDT_FIELDS = {"closID", "l3CacheSchema", "memBwSchema", "enableCMT", "enableMBM", "schemata", "enableMonitoring"}


class CdiFileError(ValueError):
    """A file that a runtime would refuse; nothing in it is usable."""


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """One accepted file. ``edits`` go in once per container that gets any of its devices."""

    path: Path
    kind: str
    edits: Json = field(hash=False)


@dataclass(frozen=True, slots=True)
class CdiDevice:
    """A device that can be injected: its own edits and the file they come from."""

    qualified_name: str
    spec: CdiSpec
    edits: Json = field(hash=False)


@dataclass(frozen=True, slots=True)
class CdiIndex:
    """What a scan found: usable devices by qualified name, and what is wrong, by file."""

    devices: Mapping[str, CdiDevice]
    errors: Mapping[Path, str]


def scan(folders: Sequence[Path], newest_version: str = NEWEST_VERSION) -> CdiIndex:
    """Reads all files of ``folders``, the last folder having the highest priority. Missing folders are empty."""
    devices: dict[str, CdiDevice] = {}
    errors: dict[Path, str] = {}
    for folder in folders:
        found: dict[str, CdiDevice] = {}
        conflicts: set[str] = set()
        for path in _spec_files(folder):
            try:
                spec_devices = read_spec(path, newest_version)
            except FileNotFoundError:
                continue  # removed since the folder was listed
            except (OSError, CdiFileError) as error:
                errors[path] = str(error)
                continue
            for device in spec_devices:
                if device.qualified_name in found:
                    other = found[device.qualified_name].spec.path
                    errors[path] = f"conflicting device {device.qualified_name} (also in {other})"
                    conflicts.add(device.qualified_name)
                found[device.qualified_name] = device
        devices.update(found)
        for name in conflicts:
            devices.pop(name, None)
    return CdiIndex(devices, errors)


def read_spec(path: Path, newest_version: str = NEWEST_VERSION) -> tuple[CdiDevice, ...]:
    """Devices of one file. Raises :class:`CdiFileError` naming the file and the field, or OSError."""
    text = path.read_text(encoding="utf-8")
    try:
        # A .json file goes through the YAML reader in the library too; json is only the stricter, faster way.
        document = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=SAFE_LOADER)  # noqa: S506 - it is safe
    except (ValueError, yaml.YAMLError) as error:
        raise CdiFileError(f"{path}: not readable as {path.suffix[1:]}: {error}") from error
    try:
        return _devices(path, document, _version(newest_version))
    except CdiFileError as error:
        raise CdiFileError(f"{path}: {error}") from None


def _spec_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml") and path.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _devices(path: Path, document: object, newest: Version) -> tuple[CdiDevice, ...]:
    spec = _object(document, "spec", _SPEC_FIELDS)
    version = _version(_text(spec, "cdiVersion", "spec"))
    if version not in _KNOWN_VERSIONS or version > newest:
        raise CdiFileError(f"invalid cdiVersion {spec['cdiVersion']!r}: this runtime knows versions up to {newest}")
    kind = _text(spec, "kind", "spec")
    vendor, slash, device_class = kind.partition("/")
    if not slash or not _VENDOR.fullmatch(vendor) or not _CLASS.fullmatch(device_class):
        raise CdiFileError(f"invalid kind {kind!r}, expected vendor/class")
    common = _edits(spec.get("containerEdits"), "containerEdits")
    entries = spec.get("devices")
    if not isinstance(entries, list) or not entries:
        raise CdiFileError("no devices")
    whole = CdiSpec(path, kind, common)
    devices: dict[str, CdiDevice] = {}
    for position, entry in enumerate(entries):
        where = f"devices[{position}]"
        device = _object(entry, where, _DEVICE_FIELDS)
        name = _text(device, "name", where)
        if not _DEVICE.fullmatch(name):
            raise CdiFileError(f"{where}: invalid device name {name!r}")
        edits = _edits(device.get("containerEdits"), f"{where}.containerEdits")
        if not edits:
            raise CdiFileError(f"{where}: empty device edits")
        if name in devices:
            raise CdiFileError(f"{where}: duplicate device {name!r}")
        devices[name] = CdiDevice(f"{kind}={name}", whole, edits)
    needed = _minimum_version(spec, device_class, tuple(devices))
    if version < needed:
        wanted = ".".join(map(str, needed))
        raise CdiFileError(f"cdiVersion {spec['cdiVersion']} is below {wanted}, which the fields in use need")
    return tuple(devices.values())


def _edits(value: object, where: str) -> Json:
    if value is None:
        return {}
    edits = _object(value, where, _EDIT_FIELDS)
    for variable in _entries(edits, "env", where):
        if not isinstance(variable, str) or "=" not in variable[1:]:
            raise CdiFileError(f"{where}.env: {variable!r} is not NAME=value")
    _each(edits, "deviceNodes", where, _check_node)
    _each(edits, "mounts", where, _check_mount)
    _each(edits, "hooks", where, _check_hook)
    _each(
        edits, "netDevices", where, lambda net, at: _required(_object(net, at, _NET_FIELDS), at, *sorted(_NET_FIELDS))
    )
    if edits.get("intelRdt") is not None:
        _object(edits["intelRdt"], f"{where}.intelRdt", _RDT_FIELDS)
    for gid in _entries(edits, "additionalGids", where):
        if not isinstance(gid, int) or gid < 0:
            raise CdiFileError(f"{where}.additionalGids: {gid!r} is not a group id")
    return {key: content for key, content in edits.items() if content}


def _check_node(value: object, where: str) -> None:
    node = _object(value, where, _NODE_FIELDS)
    _required(node, where, "path")
    if node.get("type", "") not in _NODE_TYPES:
        raise CdiFileError(f"{where}: invalid type {node['type']!r}, expected one of b, c, u, p")
    for key in ("major", "minor", "fileMode", "uid", "gid"):
        if node.get(key) is not None and not isinstance(node[key], int):
            raise CdiFileError(f"{where}.{key}: {node[key]!r} is not a number")
    if set(node.get("permissions") or "") - set("rwm"):
        raise CdiFileError(f"{where}: invalid permissions {node['permissions']!r}")


def _check_mount(value: object, where: str) -> None:
    mount = _object(value, where, _MOUNT_FIELDS)
    _required(mount, where, "hostPath", "containerPath")
    if not all(isinstance(option, str) for option in mount.get("options") or ()):
        raise CdiFileError(f"{where}.options: every option is a string")


def _check_hook(value: object, where: str) -> None:
    hook = _object(value, where, _HOOK_FIELDS)
    _required(hook, where, "hookName", "path")
    if hook["hookName"] not in HOOK_NAMES:
        raise CdiFileError(f"{where}: invalid hook name {hook['hookName']!r}")


def _minimum_version(spec: Json, device_class: str, names: Sequence[str]) -> Version:
    """The lowest version that has all features in use (pkg/cdi/version.go: required versions)."""
    all_edits = [spec.get("containerEdits") or {}, *(device.get("containerEdits") or {} for device in spec["devices"])]
    if any(edits.get("netDevices") or (edits.get("intelRdt") or {}).get("schemata") for edits in all_edits):
        return (1, 1, 0)
    if any(edits.get("additionalGids") or edits.get("intelRdt") for edits in all_edits):
        return (0, 7, 0)
    if spec.get("annotations") or any(device.get("annotations") for device in spec["devices"]) or "." in device_class:
        return (0, 6, 0)
    host_paths = any(node.get("hostPath") for edits in all_edits for node in edits.get("deviceNodes") or ())
    if host_paths or any(not name[0].isalpha() for name in names):
        return (0, 5, 0)
    if any(mount.get("type") for edits in all_edits for mount in edits.get("mounts") or ()):
        return (0, 4, 0)
    return (0, 3, 0)


def _version(text: str) -> Version:
    match = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)", text)
    if not match:
        raise CdiFileError(f"invalid cdiVersion {text!r}")
    return int(match[1]), int(match[2]), int(match[3])


def _object(value: object, where: str, known: set[str]) -> Json:
    if not isinstance(value, dict):
        raise CdiFileError(f"{where}: expected an object, found {type(value).__name__}")
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise CdiFileError(f"{where}: unknown field {unknown[0]!r}")
    return value


def _entries(owner: Json, key: str, where: str) -> list[object]:
    value = owner.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise CdiFileError(f"{where}.{key}: expected a list")
    return value


def _each(owner: Json, key: str, where: str, check: Callable[[object, str], None]) -> None:
    for position, entry in enumerate(_entries(owner, key, where)):
        check(entry, f"{where}.{key}[{position}]")


def _required(owner: Json, where: str, *keys: str) -> None:
    for key in keys:
        _text(owner, key, where)


def _text(owner: Json, key: str, where: str) -> str:
    value = owner.get(key)
    if not isinstance(value, str) or not value:
        raise CdiFileError(f"{where}: {key} is missing or not a string")
    return value
