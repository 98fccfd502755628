"""The root file system of a kind node, assembled as kind's own Dockerfile does it (images/base), without a registry.

What differs from a released node image, and why, is in docs/dev/kind.md; our files are in ``node/``.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from e2e.clusters.interface import ClusterError
from e2e.clusters.kind.node_programs import NodePrograms
from e2e.images import debian

SUITE = "trixie"  # as in kind's Dockerfile
# kind's list without the packages for storage and rootless mode, and with runc, which kind compiles.
PACKAGES = (
    "systemd,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,e2fsprogs,bash,"
    "ca-certificates,curl,jq,procps,runc"
)
OURS = Path(__file__).resolve().parent / "node"
_PR_SET_PDEATHSIG = 1
# Units that make no sense in a container; the Dockerfile removes the same.
_UNWANTED = (
    "usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "usr/lib/systemd/system/multi-user.target.wants/*",
    "usr/lib/systemd/system/local-fs.target.wants/*",
    "usr/lib/systemd/system/basic.target.wants/*",
    "usr/lib/systemd/system/sockets.target.wants/*udev*",
    "usr/lib/systemd/system/sockets.target.wants/*initctl*",
    "etc/systemd/system/*.wants/*",
    # Debian's settings are the machine's own affair; kind's, all of the network namespace, stay in /etc/sysctl.d.
    "usr/lib/sysctl.d/*",
)
_BALLAST = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")


def make_debian_root(output: Path) -> None:
    """Write a tar of the Debian packages, signed and from the mirror that apt is configured with."""
    command = ["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", f"--include={PACKAGES}"]
    command += [*debian.apt_options(), SUITE, str(output), debian.mirror()]
    _run(command, "mmdebstrap")


def assemble(root: Path, debian_tar: Path, programs: NodePrograms) -> None:
    """Fill ``root`` with everything but the images of the control plane."""
    root.mkdir()
    _run(["tar", "-C", str(root), "--numeric-owner", "--xattrs", "-xf", str(debian_tar)], "unpacking the Debian root")
    _add_kind_files(root, programs.kind_files / "files")
    _add_programs(root, programs)
    _add_our_files(root)
    for pattern in _UNWANTED:
        for path in root.glob(pattern):
            path.unlink()
    with (root / "etc/systemd/journald.conf").open("a") as file:
        file.write("ReadKMsg=no\n")
    _replace_link(root / "etc/systemd/system/systemd-binfmt.service", "/dev/null")  # it is of the whole kernel
    units = ["kubelet.service", "containerd.service", "undo-mount-hacks.service"]
    _run(["chroot", str(root), "systemctl", "enable", *units], "enabling the node's services")
    for folder in _BALLAST:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir()
    (root / "etc/machine-id").write_text("")


def unpack_images(root: Path, images: Path) -> None:
    """Import the archives of ``images`` into the containerd of ``root``."""
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    command += ["--mount-proc", sys.executable, "-m", "e2e.clusters.kind.unpack", str(root), str(images)]
    _run(command, "unpacking the control plane's images")


def _add_kind_files(root: Path, files: Path) -> None:
    """Copy kind's files with the modes of its Dockerfile: a module's zip has none."""
    executable = {"usr/local/bin", "kind/bin"}
    for source in sorted(files.rglob("*")):
        name = source.relative_to(files)
        target = root / name
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.unlink(missing_ok=True)
            target.write_bytes(source.read_bytes())
            target.chmod(0o755 if str(name.parent) in executable else 0o644)


def _add_programs(root: Path, programs: NodePrograms) -> None:
    for folder, names in {
        "usr/local/bin": ("containerd", "ctr", "containerd-shim-runc-v2", "crictl"),
        "opt/cni/bin": ("bridge", "host-local", "loopback", "portmap"),
        "usr/bin": ("kubeadm", "kubelet", "kubectl"),
    }.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(programs[name], root / folder / name)
    (root / "kind/version").write_text(f"v{programs.version}\n")
    (root / "etc/kubernetes/manifests").mkdir(parents=True)
    (root / "etc/cni/net.d").mkdir(parents=True)
    spec = json.loads(_run([str(programs["ctr"]), "oci", "spec"], "ctr oci spec"))
    spec.setdefault("hooks", {}).setdefault("createContainer", []).append({"path": "/kind/bin/mount-product-files.sh"})
    del spec["process"]["rlimits"]
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(spec))


def _add_our_files(root: Path) -> None:
    """The pod network and what a machine with cgroup v1 or without CAP_SYS_RESOURCE needs: a kind configuration then
    needs nothing of it."""
    for name, target, mode in (
        ("pod-network.conflist", "kind/pod-network.conflist", 0o644),
        ("default-cni.yaml", "kind/manifests/default-cni.yaml", 0o644),
        ("default-storage.yaml", "kind/manifests/default-storage.yaml", 0o644),
        ("init", "usr/sbin/init", 0o755),
    ):
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(OURS / name, path)
        path.chmod(mode)
    # A pod's sandbox wants -998, which takes the capability; kind does the same in a user namespace.
    _edit(root / "etc/containerd/config.toml", "restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    # Kubernetes refuses cgroup v1 since 1.35 unless told otherwise.
    _edit(root / "etc/default/kubelet", "KUBELET_EXTRA_ARGS=", "KUBELET_EXTRA_ARGS=--fail-cgroupv1=false ")


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if old not in text:
        raise ClusterError(f"kind's {path.name} has no {old!r} any more: see {__name__}")
    path.write_text(text.replace(old, new))


def _replace_link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _run(command: list[str], what: str) -> str:
    """Run a step of the assembly. It ends with this process, however that ends."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, preexec_fn=_end_with_parent
    )
    if result.returncode != 0:
        raise ClusterError(f"{what} failed ({' '.join(command[:3])} ...):\n{(result.stderr or result.stdout)[-3000:]}")
    return result.stdout


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
