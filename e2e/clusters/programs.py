"""Programs built from Go modules: which exist, their pinned versions, where they are kept, how they are built.

Each folder of ``modules/`` is a Go module with its go.mod and go.sum in this repository; its version is the one that
go.mod requires. Programs are kept in ``<cache>/bin/<name>-<version>/``. A stamp beside them names everything that went
into them, so that a changed pin, flag or source builds again and nothing else does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from e2e.clusters.interface import ClusterError
from e2e.clusters.packages import BUILD, ensure_packages

MODULES = Path(__file__).resolve().parent / "modules"
NEWEST_KUBERNETES = "1.37"
_COMPONENT_VERSION = "k8s.io/component-base/version"
_PROGRESS_SECONDS = 10.0


class ModulesOutOfReach(ClusterError):
    """Go cannot fetch what a program is built from: no network, or a proxy that does not give it out."""


def cache_folder() -> Path:
    """Where built things are kept: ``$GPU_DRA_CACHE``, else ``gpu-dra`` in the user's cache folder."""
    if chosen := os.environ.get("GPU_DRA_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "gpu-dra"


@dataclass(frozen=True, slots=True)
class Module:
    """One folder of ``modules/`` and the programs that it builds.

    ``requirement`` is the required module whose version the programs have; empty for sources of our own (``version``).
    """

    folder: str
    name: str
    packages: tuple[str, ...]
    requirement: str = ""
    version: str = "1"
    cgo: bool = False
    output: str = ""  # file name of a single program; else the packages' own names
    kubernetes: bool = False

    @property
    def path(self) -> Path:
        return MODULES / self.folder

    @property
    def resolved_version(self) -> str:
        """``1.37.2``, from go.mod."""
        if not self.requirement:
            return self.version
        text = (self.path / "go.mod").read_text()
        found = re.search(rf"^(?:require )?\s*{re.escape(self.requirement)} v(\S+)", text, re.MULTILINE)
        if found is None:
            raise ClusterError(f"{self.path / 'go.mod'} does not require {self.requirement}")
        return found[1]

    @property
    def target(self) -> Path:
        return cache_folder() / "bin" / f"{self.name}-{self.resolved_version}"

    @property
    def programs(self) -> tuple[str, ...]:
        return (self.output,) if self.output else tuple(package.rpartition("/")[2] for package in self.packages)


_CONTAINERD = "github.com/containerd/containerd/v2"
_CNI = "github.com/containernetworking/plugins"
_TOOLKIT = "github.com/NVIDIA/nvidia-container-toolkit"
_DEVICE_PLUGIN = "github.com/NVIDIA/k8s-device-plugin"
_KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
    "kubeadm",
    "kube-proxy",
)

CONTAINERD = Module(
    "containerd",
    "containerd",
    tuple(f"{_CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
    _CONTAINERD,
)
CNI = Module(
    "cni",
    "cni",
    tuple(f"{_CNI}/plugins/{name}" for name in ("main/bridge", "ipam/host-local", "main/loopback", "meta/portmap")),
    _CNI,
)
ETCD = Module("etcd", "etcd", ("go.etcd.io/etcd/server/v3",), "go.etcd.io/etcd/server/v3", output="etcd")
CRICTL = Module("crictl", "crictl", ("sigs.k8s.io/cri-tools/cmd/crictl",), "sigs.k8s.io/cri-tools")
KIND = Module("kind", "kind", ("sigs.k8s.io/kind",), "sigs.k8s.io/kind")
COREDNS = Module("coredns", "coredns", (".",), "github.com/coredns/coredns", output="coredns")
HELM = Module("helm", "helm", ("helm.sh/helm/v4/cmd/helm",), "helm.sh/helm/v4")
CDI_HOOK = Module(
    "nvidia-container-toolkit", "nvidia-container-toolkit", (f"{_TOOLKIT}/cmd/nvidia-cdi-hook",), _TOOLKIT, cgo=True
)
DEVICE_PLUGIN = Module(
    "nvidia-device-plugin",
    "nvidia-device-plugin",
    tuple(f"{_DEVICE_PLUGIN}/cmd/{name}" for name in ("nvidia-device-plugin", "gpu-feature-discovery")),
    _DEVICE_PLUGIN,
    cgo=True,
)
PAUSE = Module("pause", "pause", (".",), output="pause")
ALLOCATOR = Module("allocator", "allocator", (".",), "k8s.io/dynamic-resource-allocation", output="allocator")
_OTHERS = (CONTAINERD, CNI, ETCD, CRICTL, KIND, COREDNS, HELM, CDI_HOOK, DEVICE_PLUGIN, PAUSE, ALLOCATOR)


def kubernetes_minors() -> tuple[str, ...]:
    """The Kubernetes minors that can be built, oldest first: ``("1.34", "1.37")``."""
    found = [path.name.removeprefix("kubernetes-") for path in MODULES.glob("kubernetes-*")]
    return tuple(sorted(found, key=lambda minor: [int(part) for part in minor.split(".")]))


def kubernetes(version: str = NEWEST_KUBERNETES) -> Module:
    """The programs of one Kubernetes minor; ``version`` is ``1.37`` or its full version."""
    minor = ".".join(version.removeprefix("v").split(".")[:2])
    if minor not in kubernetes_minors():
        raise ClusterError(f"Kubernetes {version} is not built here; there are {', '.join(kubernetes_minors())}")
    module = Module(
        f"kubernetes-{minor}",
        "kubernetes",
        tuple(f"k8s.io/kubernetes/cmd/{name}" for name in _KUBERNETES_PROGRAMS),
        "k8s.io/kubernetes",
        kubernetes=True,
    )
    if version.count(".") > 1 and module.resolved_version != version.removeprefix("v"):
        raise ClusterError(f"of Kubernetes {minor} there is {module.resolved_version} here, not {version}")
    return module


def ensure(modules: Sequence[Module]) -> dict[str, Path]:
    """Build what is missing or outdated. Returns the path of every program by its name.

    Raises ClusterError with the compiler's words when a build fails, and when Go is missing or too old.
    """
    for module in modules:
        _ensure(module)
    return paths(modules)


def paths(modules: Sequence[Module]) -> dict[str, Path]:
    """Where each program is once it is built, by its name."""
    return {program: module.target / program for module in modules for program in module.programs}


def find(module: Module) -> Path | None:
    """The folder of a module's programs if they are built and current; nothing is built."""
    return module.target if _stamp(module) == _read(module.target / ".stamp") else None


def _ensure(module: Module) -> None:
    if find(module):
        return
    with _locked(cache_folder() / "build.lock"):
        if find(module):  # another process built it meanwhile
            return
        Build(module).run()


@dataclass(frozen=True, slots=True)
class Build:
    """One run of the Go compiler, with its progress on standard error."""

    module: Module

    def run(self) -> None:
        module = self.module
        go = _go(module)
        if module.cgo:
            ensure_packages(BUILD)
        work = module.target.with_name(f".{module.target.name}.new")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        output = work / module.output if module.output else work
        command = [
            go,
            "build",
            "-v",
            *_flags(module),
            "-o",
            f"{output}{'' if module.output else '/'}",
            *module.packages,
        ]
        _say(f"building {module.target.name} from its Go module ...")
        started = time.monotonic()
        packages = self._fetch(go)
        self._compile(command, packages, started)
        (work / ".stamp").write_text(_stamp(module))
        shutil.rmtree(module.target, ignore_errors=True)
        work.rename(module.target)
        _say(f"built {module.target.name} in {time.monotonic() - started:.0f} s")

    def _fetch(self, go: str) -> int:
        """Fetch the modules, whose progress Go tells; how many packages the build has at most."""
        command = [go, "list", "-mod=readonly", "-deps", *self.module.packages]
        with tempfile.TemporaryFile("w+") as listing:
            process = self._start(command, listing)
            assert process.stderr is not None
            complaints = []
            for line in process.stderr:
                if not line.startswith("go: downloading "):
                    complaints.append(line)
                _say(line.rstrip())
            if process.wait() != 0:
                raise ModulesOutOfReach(
                    f"the Go modules of {self.module.target.name} cannot be fetched:\n{''.join(complaints[-3:])}"
                )
            listing.seek(0)
            return len(listing.readlines())

    def _compile(self, command: Sequence[str], total: int, started: float) -> None:
        process = self._start(command, subprocess.DEVNULL)
        assert process.stderr is not None
        last, lines, done = time.monotonic(), [], 0
        for line in process.stderr:
            lines.append(line)
            # -v prints the import path of each package as its compilation starts.
            done += " " not in line.strip()
            if time.monotonic() - last > _PROGRESS_SECONDS:
                last = time.monotonic()
                _say(f"  {self.module.target.name}: {done} of at most {total} packages, {last - started:.0f} s")
        if process.wait() != 0:
            raise ClusterError(
                f"building {self.module.target.name} in {self.module.path} failed:\n{''.join(lines[-20:])}"
            )

    def _start(self, command: Sequence[str], output: IO[str] | int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.module.path,
            env=_environment(self.module),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )


def _flags(module: Module) -> list[str]:
    link = "-s -w"
    if module.kubernetes:
        version = module.resolved_version
        minor = version.split(".")[1]
        # Without it a node reports v0.0.0, and clients refuse it.
        link += f" -X {_COMPONENT_VERSION}.gitVersion=v{version}"
        link += f" -X {_COMPONENT_VERSION}.gitMajor=1 -X {_COMPONENT_VERSION}.gitMinor={minor}"
    return ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", link]


def _environment(module: Module) -> dict[str, str]:
    # The compiler that is there decides, never one that Go would download.
    return {**os.environ, "CGO_ENABLED": "1" if module.cgo else "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}


def _stamp(module: Module) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in module.path.iterdir() if path.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{digest.hexdigest()} {' '.join([*_flags(module), *module.packages, module.output])}\n"


def _go(module: Module) -> str:
    """The go command. Raises ClusterError when it is missing or older than the module asks for."""
    go = shutil.which("go")
    if go is None:
        raise ClusterError("the programs of a cluster are built from Go modules: install Go and put `go` on PATH")
    wanted = re.search(r"^go (\S+)", (module.path / "go.mod").read_text(), re.MULTILINE)
    answer = subprocess.run(
        [go, "env", "GOVERSION"], check=False, capture_output=True, text=True, env=_environment(module)
    )
    has = answer.stdout.strip().removeprefix("go")
    if wanted and _numbers(has) < _numbers(wanted[1]):
        raise ClusterError(f"{module.name} {module.resolved_version} needs Go {wanted[1]}, {go} is {has or 'unknown'}")
    return go


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build at a time, over all processes of this user."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Build everything that any cluster or test here uses."""
    modules = [*(kubernetes(minor) for minor in kubernetes_minors()), *_OTHERS]
    try:
        ensure(modules)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    for module in modules:
        print(f"{module.target}: {', '.join(module.programs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
