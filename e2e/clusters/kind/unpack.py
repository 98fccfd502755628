"""Unpack images into a node's own containerd: ``python -m e2e.clusters.kind.unpack ROOT IMAGES``

The node image then has them as containers will use them, and not their compressed layers too. Run by
node_root.py in mount, PID and network namespaces of its own, so every mount and process ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_LAYER_BYTES = 1 << 20
_CTR = ("ctr", "--namespace", "k8s.io")


def main(arguments: Sequence[str]) -> int:
    root, images = (Path(argument).absolute() for argument in arguments)
    for kind, source, target in (
        ("proc", "proc", "proc"),
        ("sysfs", "sysfs", "sys"),
        ("tmpfs", "tmpfs", "run"),
        ("tmpfs", "tmpfs", "tmp"),
    ):
        subprocess.run(["mount", "-t", kind, source, root / target], check=True)
    subprocess.run(["mount", "--bind", "/dev", root / "dev"], check=True)
    inside = root / "tmp/images"
    inside.mkdir()
    subprocess.run(["mount", "--bind", images, inside], check=True)
    os.chroot(root)
    os.chdir("/")
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with Path("/tmp/containerd.log").open("wb") as log:
        containerd = subprocess.Popen(["containerd"], stdout=log, stderr=log)
    try:
        _wait_for_containerd(containerd)
        for archive in sorted(Path("/tmp/images").glob("*.tar")):
            _ctr("images", "import", "--all-platforms", "--digests", "--snapshotter", "overlayfs", str(archive))
        # The layers are unpacked: without a reference the garbage collector removes their blobs.
        _ctr("content", "prune", "references")
        _wait_for_collector()
    except RuntimeError as error:
        print(error, Path("/tmp/containerd.log").read_text()[-3000:], sep="\n", file=sys.stderr)
        return 1
    finally:
        containerd.terminate()
        containerd.wait()
    return 0


def _ctr(*arguments: str) -> None:
    result = subprocess.run([*_CTR, *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"ctr {' '.join(arguments)} failed: {result.stderr}")


def _wait_for_containerd(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while subprocess.run([*_CTR, "version"], capture_output=True, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("containerd does not answer in the node's root")
        time.sleep(0.1)


def _wait_for_collector() -> None:
    blobs = Path("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256")
    deadline = time.monotonic() + 20
    while any(path.stat().st_size > _LAYER_BYTES for path in blobs.iterdir()):
        if time.monotonic() > deadline:
            raise RuntimeError("containerd has not removed the layers' blobs within 20 s")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
