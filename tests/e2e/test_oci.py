"""Image archives: what is in them is what was in the folder, byte for byte, however often they are made."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

from e2e.images.oci import ImageConfig, make_layer, write_archive


def tree(root: Path) -> Path:
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "bin/tool").chmod(0o755)
    (root / "bin/same").hardlink_to(root / "bin/tool")
    (root / "bin/link").symlink_to("tool")
    (root / "dev").mkdir()
    (root / "dev/null-of-the-host").touch()
    (root / "empty").mkdir()
    return root


def test_a_layer_keeps_modes_and_links_and_leaves_out_what_a_runtime_mounts(tmp_path: Path) -> None:
    layer = make_layer(tree(tmp_path / "root"), tmp_path / "layer.tar", prefix="opt/app")
    with tarfile.open(layer.path) as tar:
        entries = {entry.name: entry for entry in tar}
    assert sorted(entries) == [
        "opt",
        "opt/app",
        "opt/app/bin",
        "opt/app/bin/link",
        "opt/app/bin/same",
        "opt/app/bin/tool",
        "opt/app/empty",
    ]
    assert entries["opt/app/bin/tool"].linkname == "opt/app/bin/same"  # sorted: the first name has the content
    assert entries["opt/app/bin/same"].mode == 0o755
    assert entries["opt/app/bin/link"].linkname == "tool"
    assert {entry.mtime for entry in entries.values()} == {0}
    assert layer.digest == f"sha256:{hashlib.sha256(layer.path.read_bytes()).hexdigest()}"


def test_a_layer_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    first = make_layer(tree(tmp_path / "a"), tmp_path / "a.tar")
    other = tree(tmp_path / "b")
    os.utime(other / "bin/tool", (1, 1))
    assert make_layer(other, tmp_path / "b.tar").digest == first.digest


def test_an_archive_is_an_oci_layout_and_a_docker_archive(tmp_path: Path) -> None:
    layer = make_layer(tree(tmp_path / "root"), tmp_path / "layer.tar")
    config = ImageConfig(entrypoint=("/bin/tool",), user="65532:65532", environment={"A": "b"})
    size = write_archive(tmp_path / "image.tar", "localhost/thing:1", [layer], config)
    assert size == layer.size
    with tarfile.open(tmp_path / "image.tar") as tar:
        blobs = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]
    for name, content in blobs.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    (entry,) = json.loads(blobs["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/thing:1"
    manifest = json.loads(blobs[f"blobs/{entry['digest'].replace(':', '/')}"])
    image = json.loads(blobs[f"blobs/{manifest['config']['digest'].replace(':', '/')}"])
    assert image["config"]["User"] == "65532:65532"
    assert image["config"]["Env"][1:] == ["A=b"]
    assert image["rootfs"]["diff_ids"] == [layer.digest]
    (docker,) = json.loads(blobs["manifest.json"])
    assert docker["RepoTags"] == ["localhost/thing:1"]
    assert json.loads(blobs[docker["Config"]]) == image
    assert docker["Layers"] == [f"blobs/{layer.digest.replace(':', '/')}"]
