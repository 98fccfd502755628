"""What an image archive says of itself."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from e2e.clusters.interface import ClusterError

_NAME = "io.containerd.image.name"


def image_references(archive: Path) -> tuple[str, ...]:
    """The names of the images in an archive of `docker save` or in OCI layout, as containerd will know them."""
    try:
        with tarfile.open(archive) as tar:
            names = set(tar.getnames())
            if "index.json" in names:
                index = _member(tar, "index.json")
                annotations = [manifest.get("annotations") or {} for manifest in index["manifests"]]
                found = [annotation[_NAME] for annotation in annotations if _NAME in annotation]
                if found:
                    return tuple(found)
            if "manifest.json" in names:
                return tuple(tag for image in _member(tar, "manifest.json") for tag in image.get("RepoTags") or [])
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ClusterError(f"{archive} is no image archive: {error}") from error
    return ()


def _member(tar: tarfile.TarFile, name: str) -> Any:
    content = tar.extractfile(name)
    assert content is not None
    return json.load(content)
