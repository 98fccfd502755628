"""Debian packages of the programs that clusters and images need, installed when they are missing.

Only root on a Debian can install; elsewhere the missing ones are named in one line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from e2e.clusters.interface import ClusterError

# A program (or file) that must be there, and the package that has it.
BUILD: Mapping[str, str] = {"gcc": "gcc", "/usr/include/stdlib.h": "libc6-dev"}
IMAGES: Mapping[str, str] = {"mmdebstrap": "mmdebstrap", "busybox": "busybox-static"}
_NAMESPACES: Mapping[str, str] = {"ip": "iproute2", "iptables": "iptables", "nsenter": "util-linux", "runc": "runc"}
LOCAL: Mapping[str, str] = {
    **BUILD,
    **IMAGES,
    **_NAMESPACES,
    "mount": "mount",
    "openssl": "openssl",
    "sysctl": "procps",
    "unshare": "util-linux",
}
KIND: Mapping[str, str] = {
    **IMAGES,
    **_NAMESPACES,
    "containerd": "containerd",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "zstd": "zstd",
    "/usr/bin/python3": "python3",  # runs oci_runtime.py
}
_PLACES = ":".join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
_POLICY = Path("/usr/sbin/policy-rc.d")


def find_program(name: str) -> str | None:
    """Its path, also where PATH has no sbin. A name with a slash is a file."""
    if "/" in name:
        return name if Path(name).exists() else None
    return shutil.which(name) or shutil.which(name, path=_PLACES)


def missing_packages(wanted: Mapping[str, str]) -> list[str]:
    return sorted({package for program, package in wanted.items() if find_program(program) is None})


def ensure_packages(wanted: Mapping[str, str]) -> None:
    """Install what is missing, and say so. Raises ClusterError with the line to type where that is not possible."""
    missing = missing_packages(wanted)
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or find_program("apt-get") is None:
        raise ClusterError(f"missing are Debian packages, or their like: {' '.join(command)}")
    print(f"installing Debian packages: {' '.join(missing)} ...", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_stay_stopped():
        for step in (["apt-get", "update"], command):
            result = subprocess.run(step, env=environment, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise ClusterError(f"{' '.join(step)} failed:\n{(result.stdout + result.stderr)[-2000:]}")


@contextmanager
def _services_stay_stopped() -> Iterator[None]:
    """docker.io starts its daemon on installation; a policy of invoke-rc.d(8) forbids it meanwhile."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
