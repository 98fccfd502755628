"""The image that stands for those of pods where no registry is: a static busybox with the tools the examples use.

By default it is called ``ubuntu:24.04``, as in the examples. Manifests of others name images that are not here either,
such as NVIDIA's samples: the same file tree goes by any name, with what their commands call.
"""

from __future__ import annotations

import hashlib
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
_SCRIPTS = {
    "bin/bash": '#!/bin/sh\nexec sh "$@"\n',
    # In the place of the CUDA sample that NVIDIA's manifests run until they are deleted.
    "tmp/sample": "#!/bin/sh\nnvidia-smi -L\nwhile sleep 3600; do :; done\n",
}


def workload_archive(reference: str = REFERENCE) -> Path:
    """The OCI archive of the image under that name, made when it is not in the cache.

    Raises ClusterError without a static busybox.
    """
    own = "" if reference == REFERENCE else f"-{hashlib.sha256(reference.encode()).hexdigest()[:12]}"
    target = cache_folder() / "images" / f"workload{own}.tar"
    ensure_packages(IMAGES)
    busybox = shutil.which("busybox")
    if busybox is None or b"/ld-linux" in Path(busybox).read_bytes()[:_ELF_HEADERS]:
        raise ClusterError("the pods' image is made of a static busybox: apt-get install busybox-static")
    if target.exists() and target.stat().st_mtime > max(Path(path).stat().st_mtime for path in (busybox, __file__)):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        root = Path(work, "root")
        _fill(root, Path(busybox))
        layer = make_layer(root, Path(work, "layer.tar"))
        write_archive(target, reference, [layer], ImageConfig(command=("sh",)))
    return target


def full_reference(image: str) -> str:
    """An image's name as container runtimes know it: "ubuntu" is ``docker.io/library/ubuntu:latest``.

    As containerd's ``reference/docker.ParseDockerRef`` does it; the kubelet looks images up by that name.
    """
    host, slash, rest = image.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "docker.io", image if slash else f"library/{image}"
    has_version = "@" in rest or ":" in rest.rpartition("/")[2]
    return f"{host}/{rest}" if has_version else f"{host}/{rest}:latest"


def _fill(root: Path, busybox: Path) -> None:
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    shutil.copy2(busybox, root / "bin" / "busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    tools = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    for tool in tools:
        if tool != "busybox":
            (root / "bin" / tool).symlink_to("busybox")
    for name, text in _SCRIPTS.items():
        (root / name).write_text(text)
        (root / name).chmod(0o755)
