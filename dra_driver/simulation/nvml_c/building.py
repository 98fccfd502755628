"""Compiles the C library, once for each text of its sources and each compiler; the result is kept in the user's cache.

That is ``nvml`` in ``$GPU_DRA_CACHE``, or in ``gpu-dra`` of the user's cache folder. Where that cannot be written the
library is compiled each time. Without a compiler there is no library, and a sentence says why.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

logger = logging.getLogger(__name__)

COMPILER = "cc"
# No build id and no symbols of our own, so that the same sources give the same bytes wherever they lie.
_OPTIONS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")
_LINKING = ("-Wl,-soname,libnvidia-ml.so.1", "-Wl,--no-undefined", "-Wl,--build-id=none", "-s")
_SECONDS = 300  # a compiler that hangs must not hang a node's start for ever


@dataclass(frozen=True, slots=True)
class CLibrary:
    """The library's bytes; or None, and why."""

    content: bytes | None
    problem: str = ""


def c_library(cache: Path | None = None) -> CLibrary:
    """From the cache, or compiled now. ``cache``: another folder than the user's. It raises nothing."""
    compiler = shutil.which(COMPILER)
    if compiler is None:
        return CLibrary(None, f"there is no C compiler ({COMPILER}) on the PATH")
    sources = _sources()
    try:
        kept = (cache or _cache_folder()) / f"{_key(sources, Path(compiler))}.so"
        if kept.is_file():
            return CLibrary(kept.read_bytes())
    except (OSError, RuntimeError) as error:  # no home folder
        logger.debug("no cache for the simulated NVML library: %s", error)
        kept = None
    try:
        content = _compiled(compiler, sources)
    except (OSError, subprocess.SubprocessError) as error:
        return CLibrary(None, f"{compiler} does not compile it: {_said(error)}")
    if kept is not None:
        _keep(kept, content)
    return CLibrary(content)


def compile_command(compiler: str, folder: Path, output: Path, *further: str) -> list[str]:
    """What compiles the sources in ``folder``; ``further`` options, for tests."""
    files = sorted(str(path) for path in folder.glob("*.c"))
    return [compiler, *_OPTIONS, *further, "-o", str(output), *files, *_LINKING]


def write_sources(folder: Path) -> None:
    """Lay the sources out in ``folder``, whatever the package lies in."""
    for name, text in _sources().items():
        (folder / name).write_bytes(text)


def _sources() -> dict[str, bytes]:
    folder = resources.files(__package__) / "src"
    found = (item for item in folder.iterdir() if item.name.endswith((".c", ".h")))
    return {item.name: item.read_bytes() for item in sorted(found, key=lambda item: item.name)}


def _cache_folder() -> Path:
    if chosen := os.environ.get("GPU_DRA_CACHE"):
        return Path(chosen).expanduser().absolute() / "nvml"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "gpu-dra" / "nvml"


def _key(sources: dict[str, bytes], compiler: Path) -> str:
    """An updated compiler is another file; asking it for its version would start it each time."""
    program = compiler.resolve()
    found = program.stat()
    digest = hashlib.sha256(repr((str(program), found.st_size, found.st_mtime_ns, _OPTIONS, _LINKING)).encode())
    for name, text in sources.items():
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:32]


def _compiled(compiler: str, sources: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="gpu-dra-nvml-") as name:
        folder = Path(name)
        write_sources(folder)
        output = folder / "library.so"
        command = compile_command(compiler, folder, output)
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        return output.read_bytes()


def _keep(kept: Path, content: bytes) -> None:
    """Two processes that compile at once both put a whole file there."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, prefix=".", delete=False) as file:
            file.write(content)
        os.replace(file.name, kept)
    except OSError as error:
        logger.debug("the simulated NVML library is not kept in %s: %s", kept.parent, error)


def _said(error: Exception) -> str:
    lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
