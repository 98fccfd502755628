"""The driver's image without Docker: Debian's Python, locked dependencies, the wheel. ``python -m e2e.images.driver``.

Three layers, each kept in the cache by what it is made of, so that a change of the driver makes the last one anew only.
``deploy/image/Dockerfile`` makes the same image with Docker, from the same wheel and lock.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from dra_driver.version import __version__
from e2e.clusters.interface import ClusterError
from e2e.clusters.packages import IMAGES, ensure_packages
from e2e.clusters.programs import cache_folder
from e2e.images.debian import extract
from e2e.images.oci import ImageConfig, Layer, layer_of, make_layer, write_archive

_KEPT_SECONDS = 24 * 3600.0
_SUITE = "trixie"
_PYTHON = "3.13"
_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "ca-certificates", "dash")
_SITE = f"usr/local/lib/python{_PYTHON}/dist-packages"
_REPOSITORY = Path(__file__).resolve().parents[2]
_LOCK = _REPOSITORY / "requirements-image.lock"
# What the plugin needs at run time; measured in docs/dev/performance.md.
_ENVIRONMENT = {"PYTHONOPTIMIZE": "2", "MALLOC_ARENA_MAX": "1", "PYTHONUNBUFFERED": "1"}
_SUPERFLUOUS = (
    "usr/share/locale", "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/lintian", "usr/share/zoneinfo",
    "usr/share/perl5", "usr/share/pixmaps", "usr/share/polkit-1", "var/cache", "var/log", "var/lib/apt",
    f"usr/lib/python{_PYTHON}/pydoc_data", f"usr/lib/python{_PYTHON}/__pycache__",
)  # fmt: skip
# Everything that goes into the wheel (pyproject.toml, tool.hatch.build).
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "api", "dra_driver", "controller", "kubelet_plugin")
_EXAMPLES = "deploy/examples"


def reference() -> str:
    return f"localhost/gpu-dra:{__version__}"


def driver_archive() -> Path:
    """The OCI archive of :func:`reference`, made when the sources changed. Raises ClusterError."""
    ensure_packages(IMAGES)
    base = _kept("base", _text_key(_SUITE, *_PACKAGES, *_SUPERFLUOUS, _own_text()), _base)
    key = _text_key(_PYTHON, _LOCK.read_text(), _own_text())
    dependencies = _kept("dependencies", key, lambda root: _dependencies(root, base))
    application = _kept("driver", _sources_key(), lambda root: _application(root, base))
    layers = [base, dependencies, application]
    key = _text_key(*(layer.digest for layer in layers), reference(), str(_ENVIRONMENT))
    target = cache_folder() / "images" / f"gpu-dra-{key}.tar"
    if not target.exists():
        write_archive(target, reference(), layers, ImageConfig(environment=_ENVIRONMENT, command=("gpu-dra", "--help")))
        _forget_others(target, "gpu-dra-*.tar")
    return target


def main() -> int:
    try:
        archive = driver_archive()
    except ClusterError as error:
        print(f"cannot make the image: {error}", file=sys.stderr)
        return 1
    size = archive.stat().st_size / 1e6
    print(f"{reference()}: {size:.0f} MB unpacked\n{archive}")
    return 0


def _kept(name: str, key: str, make: Callable[[Path], None]) -> Layer:
    """The layer ``name`` from the cache, or made by ``make`` into a folder that is the image's root."""
    path = cache_folder() / "layers" / f"{name}-{key}.tar"
    if path.exists():
        return layer_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".work-") as work:
        root = Path(work, "root")
        make(root)
        make_layer(root, Path(work, "layer.tar"))
        Path(work, "layer.tar").replace(path)
    _forget_others(path, f"{name}-*.tar")
    return layer_of(path)


def _base(root: Path) -> None:
    extract(root, _SUITE, _PACKAGES)
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")
    for path in _SUPERFLUOUS:
        shutil.rmtree(root / path, ignore_errors=True)
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(path.read_text() for path in certificates))
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/usr/sbin/nologin\n"
    )
    (root / "etc/group").write_text("root:x:0:\nnonroot:x:65532:\n")
    (root / "tmp").chmod(0o1777)
    _compile(root, f"usr/lib/python{_PYTHON}")


def _dependencies(root: Path, base: Layer) -> None:
    """All that the wheel asks for, less the Kubernetes client, which only people's kubeconfigs need."""
    _install(root, "--require-hashes", "--requirement", str(_LOCK))
    for tests in (root / _SITE).glob("*/tests"):
        shutil.rmtree(tests)
    _compile_site(root, base)


def _application(root: Path, base: Layer) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _run([_uv(), "build", "--quiet", "--wheel", "--out-dir", folder, str(_REPOSITORY)])
        (wheel,) = Path(folder).glob("*.whl")
        _install(root, "--no-deps", str(wheel))
    _compile_site(root, base)
    # uv's own scripts name the interpreter that installed them, not the image's.
    shutil.rmtree(root / _SITE / "bin", ignore_errors=True)
    programs = root / "usr/local/bin"
    programs.mkdir(parents=True)
    scripts = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        script = programs / name
        script.write_text(
            f"#!/usr/bin/python{_PYTHON}\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        script.chmod(0o755)


def _install(root: Path, *arguments: str) -> None:
    command = [_uv(), "pip", "install", "--quiet", "--target", str(root / _SITE), "--link-mode", "copy"]
    command += ["--python-version", _PYTHON, "--python-platform", "linux", "--only-binary", ":all:"]
    _run([*command, *arguments])


def _compile(root: Path, folder: str) -> None:
    """Bytecode as ``PYTHONOPTIMIZE=2`` wants it, by the Python in ``root``: bytecode belongs to one version.

    It is never checked against the sources, whose times a layer does not keep.
    """
    python = f"/usr/bin/python{_PYTHON}"
    options = ["-q", "-o", "2", "--invalidation-mode", "unchecked-hash", "-x", "/(test|tests|idlelib|lib2to3)/"]
    # 1: some file of a package does not compile (templates, code for other versions); it would not be imported either.
    _run(["chroot", str(root), python, "-m", "compileall", *options, f"/{folder}"], accepted=(0, 1))


def _compile_site(root: Path, base: Layer) -> None:
    """Bytecode of the packages in ``root``, which has no Python of its own: they visit an unpacked base for it."""
    with tempfile.TemporaryDirectory(dir=base.path.parent, prefix=".compile-") as work:
        _run(["tar", "-C", work, "-xf", str(base.path)])
        place = Path(work, _SITE)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / _SITE, place)
        _compile(Path(work), _SITE)
        shutil.move(place, root / _SITE)


def _uv() -> str:
    uv = Path(sys.executable).with_name("uv")
    found = str(uv) if uv.exists() else shutil.which("uv")
    if found is None:
        raise ClusterError("the image is made with uv; `make image` installs it")
    return found


def _run(command: list[str], accepted: Iterable[int] = (0,)) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode not in accepted:
        raise ClusterError(f"{' '.join(command[:4])} ... ended with {done.returncode}: {done.stderr.strip()[-1500:]}")


def _forget_others(kept: Path, pattern: str) -> None:
    """Remove what no recent run made: another checkout may use its own at this moment."""
    for other in kept.parent.glob(pattern):
        if other != kept and time.time() - other.stat().st_mtime > _KEPT_SECONDS:
            other.unlink(missing_ok=True)


def _own_text() -> str:
    return Path(__file__).read_text()


def _text_key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _sources_key() -> str:
    digest = hashlib.sha256(_own_text().encode())
    for name in (*_SOURCES, _EXAMPLES):
        path = _REPOSITORY / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(_REPOSITORY)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
