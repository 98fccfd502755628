"""``python -m e2e.try_it local|kind``: a cluster that stays up, with the driver and one pod that has a GPU.

What ``make cluster`` and ``make kind`` run. Ends with the cluster's slices, the pod, and what to type next.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dra_driver.cli import get
from dra_driver.cli.manifests import in_order, load
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import PODS, AlreadyExists, ApiError, KubeApi, Obj
from e2e.clusters import programs
from e2e.clusters.interface import Cluster, ClusterError
from e2e.install import Driver
from e2e.kit.kubectl import Kubectl, KubectlError, find_kubectl, find_program
from e2e.kit.stage import Options, open_cluster
from e2e.kit.waiting import NotYet, TimedOut, eventually

EXAMPLE = Path(__file__).resolve().parents[1] / "deploy/examples/quickstart/01-one-gpu.yaml"
_POD_SECONDS = 60.0
_DOWN = {"local": "make cluster-down", "kind": "make kind-down"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m e2e.try_it", description="A cluster that stays up, with the driver and one pod that has a GPU."
    )
    parser.add_argument("cluster", choices=sorted(_DOWN))
    parser.add_argument("--kubernetes", default=programs.NEWEST_KUBERNETES, metavar="MINOR")
    parser.add_argument("--machine", metavar="NAME", help="what nodes simulate: gpu-dra machine list")
    parser.add_argument("--nodes", type=int, default=1, metavar="N")
    flags = parser.parse_args(arguments)
    options = Options(flags.cluster, flags.kubernetes, flags.machine, flags.nodes, keep=True, installed=False)
    try:
        with open_cluster(options) as cluster:
            api = connect(str(cluster.kubeconfig))
            _say("installing the driver with its chart ...")
            Driver(cluster, api).install()
            _say(f"applying {os.path.relpath(EXAMPLE)} ...")
            _show(cluster, find_kubectl(flags.kubernetes, cluster.kubeconfig), start_example(api))
            _next_steps(cluster, flags.kubernetes, _DOWN[flags.cluster])
    except (ClusterError, TimedOut, ApiError, KubectlError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    return 0


def start_example(api: KubeApi) -> Obj:
    """Apply the first example and return its pod once it runs. Raises TimedOut with what it waits for."""
    manifests = in_order(load([EXAMPLE]))
    for manifest in manifests:
        try:
            api.create(manifest.resource, manifest.object)
        except AlreadyExists:
            continue
    pod = next(manifest for manifest in manifests if manifest.resource == PODS)
    return eventually(lambda: _running(api.get(PODS, pod.name, pod.namespace)), _POD_SECONDS)


def _running(pod: Obj) -> Obj:
    status = pod.get("status") or {}
    if status.get("phase") != "Running":
        raise NotYet(f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} is {status.get('phase')}")
    return pod


def _show(cluster: Cluster, kubectl: Kubectl, pod: Obj) -> None:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    print()
    get.run("slices", None, None, "table", cluster.kubeconfig)
    print()
    get.run("pods", None, namespace, "table", cluster.kubeconfig)
    print(f"\nnvidia-smi -L in {namespace}/{name}:")
    container = pod["spec"]["containers"][0]["name"]
    print(kubectl.execute(namespace, name, container, ["nvidia-smi", "-L"]).rstrip())


def _next_steps(cluster: Cluster, kubernetes: str, down: str) -> None:
    kubectl = find_program(programs.kubernetes(kubernetes), "kubectl").parent
    print(f"""
The cluster stays up. Type next:

  export KUBECONFIG={cluster.kubeconfig} PATH={kubectl}:{find_program(programs.HELM, "helm").parent}:$PATH
  kubectl -n quickstart-01 logs one-gpu
  kubectl -n quickstart-01 exec one-gpu -- nvidia-smi -L
  kubectl apply -f deploy/examples/quickstart/08-extended-resource.yaml
  .venv/bin/gpu-dra get pods -o wide --kubeconfig $KUBECONFIG

  {down}    # takes all of it away again""")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
