"""A real etcd and kube-apiserver on free ports of 127.0.0.1, for the contract tests; nothing else of a cluster.

The programs are those of ``e2e.clusters.programs``, when they have been built (``make programs``). Admission of service
accounts is off, since no controller makes them; authorization is open.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dra_driver.errors import ConfigError
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import NAMESPACES, ApiError
from e2e.clusters import programs
from e2e.clusters.local.settings import ClusterSettings

_TOKEN = "contract-test"
_START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Binaries:
    etcd: Path
    apiserver: Path
    minor: str


def find_binaries(minor: str) -> Binaries | str:
    """The programs of that Kubernetes minor, or one line that says what is missing."""
    etcd, kubernetes = programs.find(programs.ETCD), programs.find(programs.kubernetes(minor))
    if etcd is None or kubernetes is None:
        missing = programs.ETCD if etcd is None else programs.kubernetes(minor)
        return f"no real API server: {missing.target} is not built (make programs)"
    if shutil.which("openssl") is None:
        return "no real API server: it needs openssl for its service account key"
    return Binaries(etcd / "etcd", kubernetes / "kube-apiserver", minor)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextlib.contextmanager
def running(binaries: Binaries, folder: Path) -> Iterator[Path]:
    """Start both, wait until the server is ready, give the path of a kubeconfig, and stop both by pid."""
    client, peer, secure = free_ports(3)
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{_TOKEN},admin,admin,system:masters\n")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(_KUBECONFIG.format(port=secure, token=_TOKEN))
    etcd_url = f"http://127.0.0.1:{client}"
    peer_url = f"http://127.0.0.1:{peer}"
    etcd = [
        str(binaries.etcd), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync", "--log-level", "error",
        "--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url, "--listen-peer-urls", peer_url,
        "--initial-advertise-peer-urls", peer_url, "--initial-cluster", f"default={peer_url}",
    ]  # fmt: skip
    apiserver = [
        str(binaries.apiserver), "--etcd-servers", etcd_url, "--secure-port", str(secure),
        "--bind-address", "127.0.0.1", "--cert-dir", str(folder / "pki"), "--token-auth-file", str(folder / "tokens.csv"),
        "--authorization-mode", "AlwaysAllow", "--service-account-key-file", str(key),
        "--service-account-signing-key-file", str(key), "--service-account-issuer", "https://kubernetes.default.svc",
        "--service-cluster-ip-range", "10.96.0.0/16", "--disable-admission-plugins", "ServiceAccount",
        "--allow-privileged",
    ]  # fmt: skip
    # What the suites' clusters of that minor switch on.
    if gates := ClusterSettings(kubernetes=binaries.minor).feature_gates:
        apiserver.append(f"--feature-gates={gates}")
    with _process(etcd, folder / "etcd.log"), _process(apiserver, folder / "apiserver.log") as server:
        _wait_ready(server, kubeconfig, folder / "apiserver.log")
        yield kubeconfig


_KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: contract
clusters: [{{name: real, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority: pki/apiserver.crt}}}}]
users: [{{name: admin, user: {{token: {token}}}}}]
contexts: [{{name: contract, context: {{cluster: real, user: admin}}}}]
"""


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], kubeconfig: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        # ConfigError: the server has not written its certificate yet.
        with contextlib.suppress(ApiError, ConfigError):
            connect(str(kubeconfig), timeout=2).get(NAMESPACES, "default")
            return
        time.sleep(0.1)
    raise RuntimeError(f"kube-apiserver did not become ready; the end of its log:\n{log.read_text()[-3000:]}")
