"""The images that kubeadm expects in a node: one static program each, named as kubeadm and kind name them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from e2e.clusters.interface import ClusterError
from e2e.clusters.kind.node_programs import NodePrograms
from e2e.images.oci import ImageConfig, make_layer, write_archive

_SINGLE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
# kube-proxy sets rules with these; the iptables family is one program under many names.
_PROXY_TOOLS = ("xtables-nft-multi", "conntrack", "nft", "ip", "kmod")
_PROXY_LINKS = {
    **{f"ip{six}tables{what}": "xtables-nft-multi" for six in ("", "6") for what in ("", "-save", "-restore")},
    "modprobe": "kmod",
}


def write_control_images(programs: NodePrograms, debian: Path, output: Path) -> list[Path]:
    """Write the archives into ``output``; ``debian`` is the root that kube-proxy's tools are taken from."""
    names = image_names(programs)
    archives = []
    for name in _SINGLE:
        root = _program_root(output / name, programs[name])
        archives.append(_write(root, names[name], output, ImageConfig()))
    root = _program_root(output / "coredns", programs["coredns"])
    archives.append(_write(root, names["coredns"], output, ImageConfig(entrypoint=("/usr/local/bin/coredns",))))
    root = output / "pause"
    root.mkdir()
    shutil.copy(programs["pause"], root / "pause")
    archives.append(_write(root, names["pause"], output, ImageConfig(entrypoint=("/pause",))))
    root = _program_root(output / "kube-proxy", programs["kube-proxy"])
    _add_tools(root, debian, _PROXY_TOOLS, _PROXY_LINKS)
    archives.append(_write(root, names["kube-proxy"], output, ImageConfig()))
    return archives


def image_names(programs: NodePrograms) -> dict[str, str]:
    """``{"etcd": "registry.k8s.io/etcd:3.6.5-0", ...}``; pause as kind's containerd configuration names it."""
    listing = subprocess.run(
        [programs["kubeadm"], "config", "images", "list", "--kubernetes-version", f"v{programs.version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        raise ClusterError(f"kubeadm config images list failed: {listing.stderr}")
    names = {line.rpartition(":")[0].rpartition("/")[2]: line for line in listing.stdout.split()}
    config = (programs.kind_files / "files/etc/containerd/config.toml").read_text()
    pause = re.search(r'^\s*sandbox_image = "(.+)"', config, re.MULTILINE)
    if pause is None:
        raise ClusterError("kind's containerd configuration names no sandbox_image")
    return {**names, "pause": pause[1]}


def _program_root(root: Path, program: Path) -> Path:
    """A root with one program, a /tmp and the user root."""
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/false\n")
    shutil.copy(program, root / "usr/local/bin" / program.name)
    return root


def _add_tools(root: Path, debian: Path, tools: Iterable[str], links: Mapping[str, str]) -> None:
    """Programs of the Debian root, with the libraries that they load."""
    for merged in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / merged).mkdir(parents=True, exist_ok=True)
        (root / merged).symlink_to(f"usr/{merged}")
    wanted = [_program(debian, tool) for tool in tools]
    plugins = [path for folder in (debian / "usr/lib").glob("*/xtables") for path in sorted(folder.glob("*.so"))]
    inside = [f"/{path.relative_to(debian)}" for path in [*wanted, *plugins]]
    # A plugin without dependencies makes ldd exit with 1.
    loaded = subprocess.run(["chroot", debian, "ldd", *inside], capture_output=True, text=True, check=False)
    libraries = sorted(set(re.findall(r"(?:^|\s)(/[^\s:]+\.so[^\s:]*)", loaded.stdout)))
    for path in wanted:
        shutil.copy(path, root / "usr/sbin" / path.name)
    for name in [f"/{path.relative_to(debian)}" for path in plugins] + libraries:
        # /lib is a link to usr/lib on both sides.
        target = root / name.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(debian / name.removeprefix("/"), target)
    for link, target_name in links.items():
        (root / "usr/sbin" / link).symlink_to(target_name)


def _program(debian: Path, name: str) -> Path:
    for folder in ("usr/sbin", "usr/bin"):
        if (debian / folder / name).is_file():
            return debian / folder / name
    raise ClusterError(f"the Debian root in {debian} has no {name}")


def _write(root: Path, reference: str, output: Path, config: ImageConfig) -> Path:
    archive = output / f"{root.name}.tar"
    layer = make_layer(root, output / f"{root.name}.layer")
    write_archive(archive, reference, [layer], config)
    layer.path.unlink()
    shutil.rmtree(root)
    return archive
