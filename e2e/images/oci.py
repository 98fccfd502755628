"""OCI image archives, written with nothing but the standard library.

The archive is an OCI image layout (image-spec image-layout.md) that has the ``manifest.json`` of ``docker save`` too,
so that ``ctr images import``, ``kind load image-archive`` and ``docker load`` (also before Docker 25, which knew no OCI
layout) take the same file. Layers are deterministic: sorted, times at 0, owners by number.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MEDIA = "application/vnd.oci.image"
_BLOCK = 1 << 20
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Left out of every layer: a runtime mounts its own there.
_MOUNTED = frozenset({"proc", "sys", "dev"})


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a container gets where its pod says nothing (image-spec config.md)."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = "/"


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed tar on disk. ``digest`` is ``sha256:<hex>`` of it."""

    path: Path
    digest: str
    size: int


def make_layer(root: Path, output: Path, *, prefix: str = "") -> Layer:
    """Write the tree below ``root`` as a layer; ``prefix`` is where it lies in the image ("opt/app")."""
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as tar:
        for parent in _parents(prefix):
            folder = tarfile.TarInfo(parent)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        links: dict[tuple[int, int], str] = {}
        for path in _walk(root):
            _add(tar, root, path, prefix, links)
    return layer_of(output)


def write_archive(output: Path, reference: str, layers: Sequence[Layer], config: ImageConfig) -> int:
    """Write the image ``reference`` ("docker.io/library/ubuntu:24.04"); returns its unpacked size in bytes."""
    image = _json(
        {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "config": {
                "Entrypoint": list(config.entrypoint) or None,
                "Cmd": list(config.command) or None,
                "User": config.user,
                "WorkingDir": config.working_directory,
                "Env": [f"{name}={value}" for name, value in {"PATH": _DEFAULT_PATH, **config.environment}.items()],
                "Labels": dict(config.labels) or None,
            },
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor("config.v1+json", image),
            "layers": [
                {"mediaType": f"{_MEDIA}.layer.v1.tar", "digest": layer.digest, "size": layer.size} for layer in layers
            ],
        }
    )
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.index.v1+json",
            "manifests": [
                {
                    **_descriptor("manifest.v1+json", manifest),
                    "annotations": {
                        "io.containerd.image.name": reference,
                        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
                    },
                }
            ],
        }
    )
    docker = _json(
        [
            {
                "Config": _blob(_digest(image)),
                "RepoTags": [reference],
                "Layers": [_blob(layer.digest) for layer in layers],
            }
        ]
    )
    partial = output.with_name(f".{output.name}.part")
    with tarfile.open(partial, "w") as tar:
        _add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add_bytes(tar, "index.json", index)
        _add_bytes(tar, "manifest.json", docker)
        for blob in (image, manifest):
            _add_bytes(tar, _blob(_digest(blob)), blob)
        for layer in {layer.digest: layer for layer in layers}.values():
            entry = tarfile.TarInfo(_blob(layer.digest))
            entry.size = layer.size
            with layer.path.open("rb") as content:
                tar.addfile(entry, content)
    partial.replace(output)
    return sum(layer.size for layer in layers)


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        inside = Path(folder) != root
        names[:] = sorted(name for name in names if inside or name not in _MOUNTED)
        for name in sorted([*names, *files]):
            yield Path(folder, name)


def _add(tar: tarfile.TarFile, root: Path, path: Path, prefix: str, links: dict[tuple[int, int], str]) -> None:
    name = str(Path(prefix) / path.relative_to(root))
    status = path.lstat()
    if stat.S_ISSOCK(status.st_mode):
        return
    entry = tar.gettarinfo(path, name)
    # tarfile takes hard links for the same file only within one run of its own; say it ourselves, by inode.
    if stat.S_ISREG(status.st_mode):
        entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", status.st_size
        if status.st_nlink > 1:
            first = links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, first, 0
    entry.mtime, entry.uname, entry.gname = 0, "", ""
    if entry.type == tarfile.REGTYPE:
        with path.open("rb") as content:
            tar.addfile(entry, content)
    else:
        tar.addfile(entry)


def _parents(prefix: str) -> list[str]:
    parts = [part for part in prefix.split("/") if part]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def layer_of(path: Path) -> Layer:
    """The layer that lies in ``path`` already."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return Layer(path, f"sha256:{digest.hexdigest()}", path.stat().st_size)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": f"{_MEDIA}.{kind}", "digest": _digest(content), "size": len(content)}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
