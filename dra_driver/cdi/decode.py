"""CDI files to specs, strictly: YAML or JSON, unknown fields and wrong types refused with their place.

Used to look at files that are already there (which claims and devices they name); a container runtime reads just as
strictly, so what this refuses would not have worked.
"""

from __future__ import annotations

from dra_driver.cdi.spec import (
    KNOWN_VERSIONS,
    ContainerEdits,
    Device,
    DeviceNode,
    Hook,
    Mount,
    NetDevice,
    Spec,
    SpecError,
    check,
)


def decode(data: bytes | str, *, source: str = "CDI file") -> Spec:
    """The spec in ``data``. Raises :class:`SpecError` naming ``source`` for anything a runtime would refuse."""
    import yaml  # here: a plugin whose node is in order reads no CDI file

    from dra_driver.yaml_loader import SAFE_LOADER

    try:
        document = yaml.load(data, Loader=SAFE_LOADER)  # noqa: S506 - it is safe
        spec = _read_spec(_Reader(document, "spec"))
    except (yaml.YAMLError, UnicodeDecodeError, SpecError) as error:
        raise SpecError(f"{source}: {error}") from error
    check(spec)
    return spec


class _Reader:
    """One mapping of a document: each field is taken once, by type; what is left over is an unknown field."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise SpecError(f"{where}: expected a mapping, found {type(value).__name__}")
        self.where = where
        self._left = dict(value)

    def text(self, key: str, *, required: bool = False) -> str:
        value = self._left.pop(key, None)
        if value is None and not required:
            return ""
        if not isinstance(value, str):
            raise SpecError(f"{self.where}.{key}: expected text, found {value!r}")
        return value

    def number(self, key: str) -> int | None:
        value = self._left.pop(key, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise SpecError(f"{self.where}.{key}: expected a number, found {value!r}")
        return value

    def entries(self, key: str) -> list[tuple[str, object]]:
        value = self._left.pop(key, None)
        if value is None:
            return []
        if not isinstance(value, list):
            raise SpecError(f"{self.where}.{key}: expected a list, found {value!r}")
        return [(f"{self.where}.{key}[{position}]", entry) for position, entry in enumerate(value)]

    def readers(self, key: str) -> list[_Reader]:
        return [_Reader(entry, where) for where, entry in self.entries(key)]

    def texts(self, key: str) -> tuple[str, ...]:
        texts: list[str] = []
        for where, entry in self.entries(key):
            if not isinstance(entry, str):
                raise SpecError(f"{where}: expected text, found {entry!r}")
            texts.append(entry)
        return tuple(texts)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        reader = self.optional(key)
        if reader is None:
            return ()
        return tuple((name, reader.text(name)) for name in reader.names())

    def optional(self, key: str) -> _Reader | None:
        value = self._left.pop(key, None)
        return None if value is None else _Reader(value, f"{self.where}.{key}")

    def names(self) -> list[str]:
        return list(self._left)

    def done(self) -> None:
        if self._left:
            raise SpecError(f"{self.where}: unknown field {sorted(map(str, self._left))[0]!r}")


def _read_spec(reader: _Reader) -> Spec:
    version = reader.text("cdiVersion", required=True)
    if version.removeprefix("v") not in KNOWN_VERSIONS:
        raise SpecError(f"cdiVersion: {version!r} is not one of {', '.join(KNOWN_VERSIONS)}")
    spec = Spec(
        kind=reader.text("kind", required=True),
        annotations=reader.pairs("annotations"),
        devices=tuple(_read_device(device) for device in reader.readers("devices")),
        edits=_read_edits(reader.optional("containerEdits")),
    )
    reader.done()
    return spec


def _read_device(reader: _Reader) -> Device:
    device = Device(
        name=reader.text("name", required=True),
        annotations=reader.pairs("annotations"),
        edits=_read_edits(reader.optional("containerEdits")),
    )
    reader.done()
    return device


def _read_edits(reader: _Reader | None) -> ContainerEdits:
    if reader is None:
        return ContainerEdits()
    edits = ContainerEdits(
        env=reader.texts("env"),
        device_nodes=tuple(_read_node(node) for node in reader.readers("deviceNodes")),
        net_devices=tuple(_read_net(net) for net in reader.readers("netDevices")),
        hooks=tuple(_read_hook(hook) for hook in reader.readers("hooks")),
        mounts=tuple(_read_mount(mount) for mount in reader.readers("mounts")),
        additional_gids=_read_gids(reader.entries("additionalGids")),
    )
    reader.done()
    return edits


def _read_node(reader: _Reader) -> DeviceNode:
    node = DeviceNode(
        path=reader.text("path", required=True),
        host_path=reader.text("hostPath"),
        type=reader.text("type"),
        major=reader.number("major") or 0,
        minor=reader.number("minor") or 0,
        file_mode=reader.number("fileMode"),
        permissions=reader.text("permissions"),
        uid=reader.number("uid"),
        gid=reader.number("gid"),
    )
    reader.done()
    return node


def _read_net(reader: _Reader) -> NetDevice:
    net = NetDevice(reader.text("hostInterfaceName", required=True), reader.text("name", required=True))
    reader.done()
    return net


def _read_hook(reader: _Reader) -> Hook:
    hook = Hook(
        name=reader.text("hookName", required=True),
        path=reader.text("path", required=True),
        args=reader.texts("args"),
        env=reader.texts("env"),
        timeout=reader.number("timeout"),
    )
    reader.done()
    return hook


def _read_mount(reader: _Reader) -> Mount:
    mount = Mount(
        host_path=reader.text("hostPath", required=True),
        container_path=reader.text("containerPath", required=True),
        options=reader.texts("options"),
        type=reader.text("type"),
    )
    reader.done()
    return mount


def _read_gids(entries: list[tuple[str, object]]) -> tuple[int, ...]:
    gids: list[int] = []
    for where, entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, int):
            raise SpecError(f"{where}: expected a group id, found {entry!r}")
        gids.append(entry)
    return tuple(gids)
