"""Debian root folders from this machine's own package sources, without a container engine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from e2e.clusters.interface import ClusterError

_SOURCES = Path("/etc/apt")


def mirror() -> str:
    """The first Debian archive that apt of this machine uses. Raises ClusterError when it has none."""
    files = [*sorted(_SOURCES.glob("sources.list.d/*.sources")), _SOURCES / "sources.list"]
    files += sorted(_SOURCES.glob("sources.list.d/*.list"))
    for file in files:
        if file.is_file() and (found := _first_archive(file.read_text())):
            return found
    raise ClusterError("apt of this machine has no Debian archive (/etc/apt/sources.list*); a root needs one")


def apt_options() -> list[str]:
    """The machine's proxies and certificates, as `--aptopt` arguments of mmdebstrap (it reads no other apt.conf)."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False)
    wanted = ("::proxy", "::cainfo", "::verify-peer", "::verify-host")
    lines = [line for line in dump.stdout.splitlines() if line.partition(" ")[0].lower().endswith(wanted)]
    return [f"--aptopt={line}" for line in lines]


def extract(root: Path, suite: str, packages: Sequence[str]) -> None:
    """Unpack ``packages`` and what they depend on into ``root``, without running their scripts: no shell, no apt.

    Raises ClusterError when mmdebstrap fails.
    """
    shutil.rmtree(root, ignore_errors=True)
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--mode=root", "--format=directory"]
    command += [f"--include={','.join(packages)}", *apt_options(), suite, str(root), mirror()]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"mmdebstrap {suite}: {done.stderr.strip()[-1000:]}")
    # base-files would bring these links; nothing is found without them.
    for name in ("bin", "sbin", "lib", "lib64"):
        if (root / "usr" / name).is_dir() and not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")


def _first_archive(text: str) -> str | None:
    """From deb822 (``URIs:``) or one-line (``deb [...] URI suite``) format; security archives do not count."""
    for line in text.splitlines():
        found = re.match(r"URIs:\s*(\S+)", line) or re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)", line)
        if found and "security" not in found[1]:
            return found[1]
    return None
