"""Renders deploy/manifests from the chart: ``python -m tests.deploy.manifests [--check]``.

They are the chart's objects, with the namespace that Helm would make and without the marks by which Helm knows its own.
``--check`` writes nothing and fails when a file is not current; a test does the same.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from tests.deploy import helm

FOLDER = helm.ROOT / "deploy/manifests"
# Without Helm, its mark for what an uninstallation leaves means nothing.
COMMON = ("--set", "crds.keep=false")
FILES: dict[str, tuple[str, ...]] = {
    "gpu-dra.yaml": COMMON,
    "gpu-dra-simulated.yaml": (*COMMON, "--set", "simulated.enabled=true"),
}

_HEAD = """\
# {about}
# Rendered from deploy/chart/gpu-dra by `make manifests`. Install: kubectl apply --server-side -f {name}
# The image is yours to provide: replace localhost/gpu-dra:... where it cannot be loaded into the nodes.
apiVersion: v1
kind: Namespace
metadata:
  name: gpu-dra
  labels:
    # The plugin opens the node's devices and talks to its kubelet.
    pod-security.kubernetes.io/enforce: privileged
"""
_ABOUT = {
    "gpu-dra.yaml": "gpu-dra with the chart's default values, for nodes with NVIDIA GPUs.",
    "gpu-dra-simulated.yaml": "gpu-dra with simulated GPUs on every node, for trying and for CI.",
}


def manifest(name: str) -> str:
    """What the file has to be."""
    text = helm.template(*FILES[name])
    text = re.sub(r"^ *helm\.sh/chart: .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl")
    text = re.sub(r"^# Source: .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{2,}", "\n", text)
    return _HEAD.format(about=_ABOUT[name], name=name) + text.rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.manifests", description="Renders deploy/manifests.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is not current")
    check = parser.parse_args(arguments).check
    stale = 0
    for name in FILES:
        try:
            text = manifest(name)
        except helm.HelmError as error:
            sys.stderr.write(f"{name} cannot be rendered: {error}\n")
            return 2
        path = FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        if not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        sys.stdout.write(f"deploy/manifests/{name}: {'not current, run make manifests' if check else 'written'}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
