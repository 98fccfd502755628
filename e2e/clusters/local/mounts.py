"""The private mounts of a machine: standard paths lead into the cluster's folder, the host's files stay as they are.

Called by process 1 in its own mount namespace. Nothing is made on the host's file system, not even a mount point:
``/var/lib`` gets an overlay whose upper side is a tmpfs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# kubelet with protectKernelDefaults only checks these. They belong to the whole machine, so it gets to see files with
# the wanted values instead (pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables).
_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_OVERLAID = ("/var/lib",)
_TMPFS = ("/run",)


def prepare_mounts(spec: Mapping[str, Any]) -> None:
    """``spec``: ``scratch`` (a folder of this machine's own) and ``binds`` ({path inside: folder outside}).

    Raises CalledProcessError when a mount is refused.
    """
    scratch = Path(spec["scratch"])
    binds: Mapping[str, str] = spec["binds"]
    # Sources are opened before anything is hidden below an overlay or tmpfs.
    sources = {target: _keep(scratch / "binds" / str(number), source) for number, (target, source) in _numbered(binds)}
    for path in _OVERLAID:
        _overlay(scratch, path)
    for path in _TMPFS:
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    for target, source in sources.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount("--bind", str(source), target)
    _mount("--make-rshared", "/")  # the kubelet needs shared propagation for volumes
    _show_sysctls(scratch)


def _numbered(binds: Mapping[str, str]) -> Sequence[tuple[int, tuple[str, str]]]:
    return list(enumerate(binds.items()))


def _keep(place: Path, source: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    Path(source).mkdir(parents=True, exist_ok=True)
    _mount("--bind", source, str(place))
    return place


def _overlay(scratch: Path, path: str) -> None:
    layer = scratch / "overlays" / path.strip("/").replace("/", "-")
    layer.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(layer))
    for name in ("upper", "work"):
        (layer / name).mkdir()
    _mount("-t", "overlay", "-o", f"lowerdir={path},upperdir={layer}/upper,workdir={layer}/work", "overlay", path)


def _show_sysctls(scratch: Path) -> None:
    folder = scratch / "sysctls"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in _SYSCTLS.items():
        file = folder / name.replace("/", "_")
        file.write_text(f"{value}\n")
        _mount("--bind", str(file), f"/proc/sys/{name}")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
