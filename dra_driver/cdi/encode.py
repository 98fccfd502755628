"""CDI specs to text: the YAML file of a spec, in NVIDIA's form.

The form (``---``, four-column indent, the key order of the CDI Go structs) lets their files and ours be compared by eye
and by diff. It is written by a small emitter of its own: a claim's file has about a thousand lines, which PyYAML's
dumper takes ten times longer to write, and most of them are the same in every claim, so each :class:`ContainerEdits` is
rendered once and remembered. ``decode`` is the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from dra_driver.cdi.spec import ContainerEdits, Device, DeviceNode, Hook, Mount, Spec, check, minimum_version

Json = dict[str, Any]

_STEP = 4  # columns of indent, as Go's yaml.v3 writes
_UNSAFE_START = frozenset("!&*#|>%@`\"'{}[],?:- ")
# What YAML 1.1 or 1.2 may take for something else than text. Wider than their rules: quotes too many do no harm, and
# this module stays free of PyYAML, which costs a plugin that reads no YAML 1 MiB.
_TYPED_WORDS = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null", "~", "=", "<<"))
_TYPED = re.compile(r"[-+]?\.(inf|nan)|[-+.0-9][-+.:_0-9a-fox tz]*", re.IGNORECASE)
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


def to_dict(spec: Spec) -> Json:
    """The document of ``spec``, keys in the order of the CDI Go structs, unset fields left out."""
    document: Json = {"cdiVersion": minimum_version(spec), "kind": spec.kind}
    if spec.annotations:
        document["annotations"] = dict(spec.annotations)
    document["devices"] = [_device_dict(device) for device in spec.devices]
    if not spec.edits.is_empty():
        document["containerEdits"] = _edits_dict(spec.edits)
    return document


def encode(spec: Spec) -> bytes:
    """The file of ``spec``. Raises :class:`SpecError` instead of writing what a runtime would refuse."""
    check(spec)
    parts = ["---\n", f"cdiVersion: {minimum_version(spec)}\n", f"kind: {_scalar(spec.kind)}\n"]
    if spec.annotations:
        parts.append(_render({"annotations": dict(spec.annotations)}, 0))
    parts.append("devices:\n")
    for device in spec.devices:
        parts.append(f"    - name: {_scalar(device.name)}\n")
        if device.annotations:
            parts.append(_render({"annotations": dict(device.annotations)}, 6))
        parts.append(f"      containerEdits:\n{_rendered_edits(device.edits, 8)}")
    if not spec.edits.is_empty():
        parts.append(f"containerEdits:\n{_rendered_edits(spec.edits, 4)}")
    return "".join(parts).encode()


# -- values to dictionaries -------------------------------------------------------------------------------------------


def _device_dict(device: Device) -> Json:
    document: Json = {"name": device.name}
    if device.annotations:
        document["annotations"] = dict(device.annotations)
    document["containerEdits"] = _edits_dict(device.edits)
    return document


def _edits_dict(edits: ContainerEdits) -> Json:
    return _without_unset(
        {
            "env": list(edits.env),
            "deviceNodes": [_node_dict(node) for node in edits.device_nodes],
            "netDevices": [
                {"hostInterfaceName": net.host_interface_name, "name": net.name} for net in edits.net_devices
            ],
            "hooks": [_hook_dict(hook) for hook in edits.hooks],
            "mounts": [_mount_dict(mount) for mount in edits.mounts],
            "additionalGids": list(edits.additional_gids),
        }
    )


def _node_dict(node: DeviceNode) -> Json:
    return _without_unset(
        {
            "path": node.path,
            "hostPath": node.host_path,
            "type": node.type,
            "major": node.major or None,
            "minor": node.minor or None,
            "fileMode": node.file_mode,
            "permissions": node.permissions,
            "uid": node.uid,
            "gid": node.gid,
        }
    )


def _hook_dict(hook: Hook) -> Json:
    return _without_unset(
        {
            "hookName": hook.name,
            "path": hook.path,
            "args": list(hook.args),
            "env": list(hook.env),
            "timeout": hook.timeout,
        }
    )


def _mount_dict(mount: Mount) -> Json:
    return _without_unset(
        {
            "hostPath": mount.host_path,
            "containerPath": mount.container_path,
            "options": list(mount.options),
            "type": mount.type,
        }
    )


def _without_unset(document: Json) -> Json:
    return {key: value for key, value in document.items() if value is not None and value not in ("", [])}


# -- dictionaries to text ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _rendered_edits(edits: ContainerEdits, indent: int) -> str:
    return _render(_edits_dict(edits), indent)


def _render(document: Mapping[str, Any], indent: int) -> str:
    return "".join(f"{line}\n" for line in _mapping_lines(document, indent))


def _mapping_lines(document: Mapping[str, Any], indent: int) -> Iterator[str]:
    pad = " " * indent
    deeper = (indent // _STEP + 1) * _STEP
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield f"{pad}{_scalar(key)}:"
            yield from _mapping_lines(value, deeper)
        elif isinstance(value, list):
            yield f"{pad}{_scalar(key)}:"
            yield from _sequence_lines(value, deeper)
        else:
            yield f"{pad}{_scalar(key)}: {_scalar(value)}"


def _sequence_lines(values: Sequence[Any], indent: int) -> Iterator[str]:
    pad = " " * indent
    for value in values:
        if isinstance(value, Mapping):
            lines = _mapping_lines(value, indent + 2)
            yield f"{pad}- {next(lines)[indent + 2 :]}"
            yield from lines
        else:
            yield f"{pad}- {_scalar(value)}"


def _scalar(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    return value if _is_plain(value) else _quoted(value)


def _is_plain(text: str) -> bool:
    """Whether ``text`` may stand unquoted in a block: it reads back as this very string (YAML 1.1 and 1.2)."""
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        return False
    if (text[0] in _UNSAFE_START and not (text[0] == "-" and text[1:2] not in ("", " "))) or text.startswith("---"):
        return False
    if ": " in text or " #" in text or text.endswith(":"):
        return False
    if _VERSION.fullmatch(text):
        return True
    return text.lower() not in _TYPED_WORDS and not _TYPED.fullmatch(text)


def _quoted(text: str) -> str:
    """A double-quoted scalar; every character that YAML could take otherwise is escaped."""
    escaped = []
    for character in text:
        if character in '"\\':
            escaped.append(f"\\{character}")
        elif " " <= character <= "~":
            escaped.append(character)
        else:
            escaped.append(f"\\U{ord(character):08x}")
    return f'"{"".join(escaped)}"'
