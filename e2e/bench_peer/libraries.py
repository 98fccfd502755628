"""The simulated driver's libraries as real ones, where a program looks into them.

The simulated tree has texts in their place, which is enough for mounting them. A driver may read a library's own name
(DT_SONAME) to link it by; so each text becomes an empty shared object of that name.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dra_driver.simulation.nvml_c.building import COMPILER
from e2e.clusters.interface import ClusterError

FOLDER = "usr/lib/x86_64-linux-gnu"  # below the driver's root
_ELF = b"\x7fELF"
_VERSION = re.compile(r"\.so\.[0-9.]+$")


def make_real(root: Path) -> None:
    """Every text below ``root`` that stands for a library. ClusterError where it cannot be compiled."""
    folder = root / FOLDER
    with tempfile.TemporaryDirectory(prefix="gpu-dra-bench-") as scratch:
        source, output = Path(scratch) / "nothing.c", Path(scratch) / "library.so"
        source.write_text("")
        for library, soname in stand_ins(folder):
            command = [COMPILER, "-shared", "-nostdlib", f"-Wl,-soname,{soname}", "-s", "-o", str(output), str(source)]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or error
                raise ClusterError(f"{library.name} cannot be compiled: {said}; is there a C compiler?") from error
            library.write_bytes(output.read_bytes())


def stand_ins(folder: Path) -> Iterator[tuple[Path, str]]:
    """Texts in the place of libraries, and the name that each has for the linker: that of the link to it."""
    links = {link.readlink().name: link.name for link in folder.iterdir() if link.is_symlink()}
    for path in sorted(folder.iterdir()):
        if _VERSION.search(path.name) and not path.is_symlink() and not path.read_bytes().startswith(_ELF):
            yield path, links.get(path.name, path.name)
