"""What a cluster without the user's Docker needs of the machine: Debian packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.clusters.interface import ClusterError

# A program that must be there, and the package that has it.
PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "runc": "runc",
    "containerd": "containerd",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "zstd": "zstd",
    "/usr/bin/python3": "python3",  # runs oci_runtime.py
}
_PLACES = ":".join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
_POLICY = Path("/usr/sbin/policy-rc.d")


def find_program(name: str) -> str | None:
    """Its path, also where PATH has no sbin."""
    return shutil.which(name) or shutil.which(name, path=_PLACES)


def missing_packages() -> list[str]:
    return sorted({package for program, package in PACKAGES.items() if find_program(program) is None})


def ensure_packages() -> None:
    """Install what is missing with apt-get where CI is set; elsewhere raise with the line to type."""
    missing = missing_packages()
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if not os.environ.get("CI"):
        raise ClusterError(f"kind with a Docker daemon of its own needs Debian packages: {' '.join(command)}")
    print(f"installing {' '.join(missing)} ...", file=sys.stderr, flush=True)
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
