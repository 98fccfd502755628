"""The image that stands for ``ubuntu:24.04`` where no registry is: a static busybox with the tools the examples use.

Debian's busybox has no flock, which simulated MPS clients need (``dra_driver/simulation/hardware/mps/scripts.py``): the
host's is put in, with the libraries that it is linked to.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from e2e.clusters.interface import ClusterError
from e2e.clusters.packages import IMAGES, ensure_packages
from e2e.clusters.programs import cache_folder
from e2e.images.oci import ImageConfig, make_layer, write_archive

REFERENCE = "docker.io/library/ubuntu:24.04"
_ELF_HEADERS = 4096  # a program that is linked dynamically names its linker there
_FOLDERS = ("bin", "etc", "tmp", "root", "usr/bin")
_LIBRARY = re.compile(r"(/\S+) \(0x")  # of a line of ldd


def workload_archive() -> Path:
    """The OCI archive, made when it is not in the cache. Raises ClusterError without a static busybox."""
    target = cache_folder() / "images" / "workload.tar"
    ensure_packages(IMAGES)
    busybox = shutil.which("busybox")
    if busybox is None or b"/ld-linux" in Path(busybox).read_bytes()[:_ELF_HEADERS]:
        raise ClusterError("the pods' image is made of a static busybox: apt-get install busybox-static")
    flock = shutil.which("flock")
    if flock is None:
        raise ClusterError("the pods' image needs flock: apt-get install util-linux")
    if target.exists() and target.stat().st_mtime > max(
        Path(path).stat().st_mtime for path in (busybox, flock, __file__)
    ):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        root = Path(work, "root")
        _fill(root, Path(busybox))
        _add(root, Path(flock))
        layer = make_layer(root, Path(work, "layer.tar"))
        write_archive(target, REFERENCE, [layer], ImageConfig(command=("sh",)))
    return target


def _fill(root: Path, busybox: Path) -> None:
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    shutil.copy2(busybox, root / "bin" / "busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    tools = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    for tool in tools:
        if tool != "busybox":
            (root / "bin" / tool).symlink_to("busybox")


def _add(root: Path, program: Path) -> None:
    """A program of the host, where its name is found, and its libraries where it looks for them."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    for file in (program, *map(Path, _LIBRARY.findall(listed))):
        target = root / file.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
