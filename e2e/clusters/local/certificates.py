"""The cluster's authority, the API server's certificate, the key of service account tokens, and everybody's kubeconfig.

Made with openssl: a real authority, so that clients verify the server everywhere, also through the forwarded port.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.clusters.interface import ClusterError
from e2e.clusters.local.settings import API_PORT, CONTROL_ADDRESS, SERVICE_ADDRESS, ClusterSettings

SERVER_NAME = "kubernetes.default.svc"
_DAYS = "3650"
_NAMES = f"DNS:kubernetes,DNS:kubernetes.default,DNS:{SERVER_NAME},DNS:{SERVER_NAME}.cluster.local,DNS:localhost"
_ADDRESSES = f"IP:{SERVICE_ADDRESS},IP:{CONTROL_ADDRESS},IP:127.0.0.1"


@dataclass(frozen=True, slots=True)
class Account:
    """One client of the API server: who it is there, by a token."""

    user: str
    groups: tuple[str, ...] = ()


def accounts(settings: ClusterSettings) -> Mapping[str, Account]:
    """By the name of the kubeconfig: the administrator, the control plane, each node's kubelet and kube-proxy."""
    found = {
        "admin": Account("admin", ("system:masters",)),
        "kube-controller-manager": Account("system:kube-controller-manager"),
        "kube-scheduler": Account("system:kube-scheduler"),
        "kube-proxy": Account("system:kube-proxy", ("system:node-proxier",)),
    }
    for node in settings.node_settings:
        found[f"kubelet-{node.name}"] = Account(f"system:node:{node.name}", ("system:nodes",))
    return found


def make(settings: ClusterSettings) -> None:
    """Write everything into ``settings.pki``. Raises ClusterError when openssl is missing or fails."""
    folder = settings.pki
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    extensions = folder / "server.ext"
    extensions.write_text(
        f"subjectAltName={_NAMES},{_ADDRESSES}\nextendedKeyUsage=serverAuth\n"
        "keyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        folder,
        [
            *(
                "req",
                "-x509",
                *curve,
                "-keyout",
                "ca.key",
                "-out",
                "ca.crt",
                "-days",
                _DAYS,
                "-subj",
                "/CN=gpu-dra-e2e",
            ),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"),
        ],
    )
    _openssl(folder, ["req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=kube-apiserver"])
    _openssl(
        folder,
        [
            *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", _DAYS, "-extfile", extensions.name, "-out", "server.crt"),
        ],
    )
    _openssl(folder, ["genrsa", "-out", "service-accounts.key", "2048"])
    rows = []
    for name, account in accounts(settings).items():
        token = secrets.token_hex(16)
        rows.append(f'{token},{account.user},{name},"{",".join(account.groups)}"\n')
        path = settings.kubeconfig_of(name)
        write_kubeconfig(path, f"https://{CONTROL_ADDRESS}:{API_PORT}", token, folder / "ca.crt")
    (folder / "tokens.csv").write_text("".join(rows))


def write_kubeconfig(path: Path, server: str, token: str, authority: Path) -> None:
    path.write_text(
        "apiVersion: v1\nkind: Config\n"
        f'clusters: [{{name: local, cluster: {{server: "{server}", certificate-authority: "{authority}"}}}}]\n'
        f"users: [{{name: user, user: {{token: {token}}}}}]\n"
        "contexts: [{name: local, context: {cluster: local, user: user}}]\ncurrent-context: local\n"
    )
    path.chmod(0o600)


def write_outside_kubeconfig(settings: ClusterSettings, port: int) -> None:
    """The administrator's, for this machine: through the forwarded ``port``."""
    token = next(
        row.partition(",")[0]
        for row in (settings.pki / "tokens.csv").read_text().splitlines()
        if row.split(",")[1] == "admin"
    )
    write_kubeconfig(settings.kubeconfig, f"https://127.0.0.1:{port}", token, settings.pki / "ca.crt")


def _openssl(folder: Path, arguments: list[str]) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ClusterError("openssl is needed for the cluster's certificates; install it") from error
    if done.returncode != 0:
        raise ClusterError(f"openssl {' '.join(arguments)}: {done.stderr.strip()}")
