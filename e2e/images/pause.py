"""The sandbox image of local pods: one static program."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from e2e.clusters import programs
from e2e.clusters.local.settings import PAUSE_IMAGE
from e2e.images.oci import ImageConfig, make_layer, write_archive


def pause_archive() -> Path:
    """The OCI archive, made when it is not in the cache."""
    target = programs.cache_folder() / "images" / f"pause-{programs.PAUSE.resolved_version}.tar"
    if target.exists():
        return target
    program = programs.ensure([programs.PAUSE])["pause"]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        root = Path(work, "root")
        root.mkdir()
        shutil.copy2(program, root / "pause")
        layer = make_layer(root, Path(work, "layer.tar"))
        write_archive(target, PAUSE_IMAGE, [layer], ImageConfig(entrypoint=("/pause",), user="65535:65535"))
    return target
