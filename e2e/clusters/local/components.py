"""Command line and configuration of each component. Pure, except for ``write_files``, which writes what they read.

Sources of the flags: the components' own help of 1.37; what is unusual says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters.local import cgroups
from e2e.clusters.local.settings import (
    API_PORT,
    CONTROL_ADDRESS,
    PAUSE_IMAGE,
    RUNTIME_CONFIG,
    SERVICE_RANGE,
    ClusterSettings,
    NodeSettings,
)

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
_ETCD = "http://127.0.0.1:2379"
_LOOK_AGAIN_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Components:
    """The components of one cluster; ``programs`` are paths by program name."""

    settings: ClusterSettings
    programs: Mapping[str, Path]

    # -- control plane ----------------------------------------------------------------------------------------------

    def etcd(self) -> list[str]:
        return [
            str(self.programs["etcd"]),
            "--data-dir=/run/etcd",  # a tmpfs: the cluster's objects end with it
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ]

    def apiserver(self) -> list[str]:
        pki = self.settings.pki
        return [
            str(self.programs["kube-apiserver"]),
            f"--etcd-servers={_ETCD}",
            f"--secure-port={API_PORT}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={CONTROL_ADDRESS}",
            f"--tls-cert-file={pki / 'server.crt'}",
            f"--tls-private-key-file={pki / 'server.key'}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--token-auth-file={pki / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-account-key-file={pki / 'service-accounts.key'}",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--allow-privileged=true",
            # Host names of nodes resolve nowhere; with addresses `kubectl logs` and `exec` work.
            "--kubelet-preferred-address-types=InternalIP",
            # No kube-proxy runs beside the API server: services (webhooks) are reached by their endpoints.
            "--enable-aggregator-routing=true",
            f"--runtime-config={RUNTIME_CONFIG}",
            *self._gates(),
        ]

    def controller_manager(self) -> list[str]:
        return [
            str(self.programs["kube-controller-manager"]),
            f"--kubeconfig={self.settings.kubeconfig_of('kube-controller-manager')}",
            f"--service-account-private-key-file={self.settings.pki / 'service-accounts.key'}",
            f"--root-ca-file={self.settings.pki / 'ca.crt'}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            *self._gates(),
        ]

    def scheduler(self) -> list[str]:
        kubeconfig = self.settings.kubeconfig_of("kube-scheduler")
        return [
            str(self.programs["kube-scheduler"]),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            # Now and then it does not wake a pod for what it waits for, and looks again after five minutes by default:
            # longer than any test waits.
            f"--pod-max-in-unschedulable-pods-duration={_LOOK_AGAIN_SECONDS}s",
            *self._gates(),
        ]

    # -- nodes ------------------------------------------------------------------------------------------------------

    def containerd(self, node: NodeSettings) -> list[str]:
        return [str(self.programs["containerd"]), f"--config={self._folder(node) / 'containerd.toml'}"]

    def kubelet(self, node: NodeSettings) -> list[str]:
        return [
            str(self.programs["kubelet"]),
            f"--config={self._folder(node) / 'kubelet.json'}",
            f"--kubeconfig={self.settings.kubeconfig_of(f'kubelet-{node.name}')}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            "--cert-dir=/var/lib/kubelet/pki",
            *self._gates(),
            "-v=3",  # below that it says nothing about DRA plugins and slices
        ]

    def kube_proxy(self, node: NodeSettings) -> list[str]:
        return [str(self.programs["kube-proxy"]), f"--config={self._folder(node) / 'kube-proxy.json'}"]

    @property
    def environment(self) -> dict[str, str]:
        """containerd finds its shim, kube-proxy iptables, kubelet mount by PATH."""
        shim = self.programs["containerd-shim-runc-v2"].parent
        return {"PATH": f"{shim}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def write_files(self) -> None:
        """Write what containerd, kubelet and kube-proxy of every node read."""
        for node in self.settings.node_settings:
            folder = self._folder(node)
            (folder / "cni").mkdir(parents=True, exist_ok=True)
            (folder / "cni" / "10-bridge.conflist").write_text(_cni(node))
            (folder / "containerd.toml").write_text(_containerd(folder, self.programs["bridge"].parent))
            (folder / "kubelet.json").write_text(json.dumps(_kubelet(), indent=1))
            proxy = _kube_proxy(self.settings.kubeconfig_of("kube-proxy"), node)
            (folder / "kube-proxy.json").write_text(json.dumps(proxy, indent=1))

    def _folder(self, node: NodeSettings) -> Path:
        return self.settings.machine_folder(node.name)

    def _gates(self) -> list[str]:
        gates = self.settings.feature_gates
        return [f"--feature-gates={gates}"] if gates else []


def _cni(node: NodeSettings) -> str:
    ipam = {"type": "host-local", "ranges": [[{"subnet": node.pod_range}]], "routes": [{"dst": "0.0.0.0/0"}]}
    # Every machine has a route to every node's pods, so nothing needs to be masqueraded.
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": ipam}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]})


def _containerd(folder: Path, cni_programs: Path) -> str:
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE no score can be lowered, and every sandbox would fail.
    return f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins.'io.containerd.internal.v1.opt']
  path = "/var/lib/containerd/opt"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ["/var/run/cdi"]
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni_programs}"]
    conf_dir = "{folder / "cni"}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _kubelet() -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "address": "0.0.0.0",  # on 127.0.0.1 the API server could not reach it for exec and logs
        "cgroupDriver": "cgroupfs",
        # Only version 1 needs it (since 1.35), and only kubelets that know the field may see it.
        **({} if cgroups.is_version_2() else {"failCgroupV1": False}),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "enforceNodeAllocatable": [],
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        # What a process without CAP_SYS_RESOURCE may have.
        "maxOpenFiles": 20000,
        "oomScoreAdj": 0,
        # Check sysctls, do not set them: they belong to the whole machine.
        "protectKernelDefaults": True,
        "clusterDNS": ["10.96.0.10"],
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "5s",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "serializeImagePulls": False,
    }


def _kube_proxy(kubeconfig: Path, node: NodeSettings) -> dict[str, object]:
    # Zeros leave the host's connection tracking limits alone: they are machine-wide.
    untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": "10.244.0.0/16",
        "mode": "iptables",
        "conntrack": untouched,
        "hostnameOverride": node.name,
        "nodeIPOverride": [node.address],
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }
