"""kubeconfigs and service accounts: what is understood, and what is said when something is missing."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dra_driver.errors import ConfigError
from dra_driver.kube import kubeconfig as kubeconfigs
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import NODES
from tests.kube.scripted_server import ScriptedServer, answer

NODE = {"metadata": {"name": "n"}}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def config(
    server: str = "http://127.0.0.1:1", *, user: Any = None, cluster: Any = None, **changes: Any
) -> dict[str, Any]:
    return {
        "current-context": "main",
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
        **changes,
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    request = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=x",
        "-days",
        "1",
    ]
    subprocess.run(["openssl", *request, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


class TestUsers:
    @pytest.mark.parametrize(
        ("user", "header"),
        [
            ({"token": "abc"}, "Bearer abc"),
            ({"username": "ann", "password": "pw"}, "Basic " + base64.b64encode(b"ann:pw").decode()),
            ({}, None),
        ],
    )
    def test_static(self, tmp_path: Path, user: dict[str, str], header: str | None) -> None:
        with ScriptedServer(answer(200, NODE)) as server:
            connect(str(write(tmp_path / "k", config(server.url, user=user)))).get(NODES, "n")
        assert server.requests[0].headers.get("authorization") == header

    def test_a_token_file_beside_the_kubeconfig(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("from-file\n")
        with ScriptedServer(answer(200, NODE)) as server:
            connect(str(write(tmp_path / "k", config(server.url, user={"tokenFile": "token"})))).get(NODES, "n")
        assert server.requests[0].headers["authorization"] == "Bearer from-file"

    def test_a_command_logs_in_through_the_official_client(self, tmp_path: Path) -> None:
        credential = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {"token": "from-command"},
        }
        user = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": ["-c", f"print({json.dumps(json.dumps(credential))})"],
                "interactiveMode": "Never",
            }
        }
        with ScriptedServer(answer(200, NODE)) as server:
            connect(str(write(tmp_path / "k", config(server.url, user=user)))).get(NODES, "n")
        assert server.requests[0].headers["authorization"] == "Bearer from-command"

    def test_a_command_without_the_official_client(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kubernetes", None)
        user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "login"}}
        with pytest.raises(ConfigError, match="logs in by a command or a provider") as caught:
            connect(str(write(tmp_path / "k", config(user=user))))
        assert "the Python package kubernetes, which does that, is missing" in str(caught.value)
        assert "the driver's image leaves this package out" in caught.value.hint

    def test_client_certificates(self, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
        cert, key = certificate
        user = {"client-certificate": "tls.crt", "client-key-data": base64.b64encode(key.read_bytes()).decode()}
        cluster = {"certificate-authority-data": base64.b64encode(cert.read_bytes()).decode()}
        path = write(tmp_path / "k", config("https://127.0.0.1:1", user=user, cluster=cluster))
        assert connect(str(path)).url == "https://127.0.0.1:1"
        login = kubeconfigs.load([path])
        assert login.endpoint.ca == cert.read_text()
        assert login.endpoint.client_key == key.read_text()

    def test_a_key_that_does_not_fit(self, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
        user = {"client-certificate": str(certificate[0]), "client-key": str(certificate[0])}
        path = write(tmp_path / "k", config("https://127.0.0.1:1", user=user))
        with pytest.raises(ConfigError, match=r"client certificate and key for https://127\.0\.0\.1:1 cannot be used"):
            connect(str(path))


class TestFiles:
    def test_the_environment_lists_files_and_the_first_entry_wins(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = write(tmp_path / "a", {"current-context": "main", "users": [{"name": "u", "user": {"token": "first"}}]})
        second = write(tmp_path / "b", config("http://127.0.0.1:2", user={"token": "second"}))
        monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(first), str(tmp_path / "absent"), str(second)]))
        login = kubeconfigs.load(kubeconfigs.default_paths())
        assert login.endpoint.url == "http://127.0.0.1:2"
        assert login.credentials is not None
        assert login.credentials.headers() == {"Authorization": "Bearer first"}

    def test_the_default_is_in_the_home_folder(self, tmp_path: Path) -> None:
        (tmp_path / ".kube").mkdir()
        write(tmp_path / ".kube" / "config", config("http://127.0.0.1:3"))
        assert connect().url == "http://127.0.0.1:3"

    def test_another_context(self, tmp_path: Path) -> None:
        contexts = [{"name": "other", "context": {"cluster": "c", "user": "u"}}]
        path = write(tmp_path / "k", config(contexts=contexts))
        assert connect(str(path), context="other").url == "http://127.0.0.1:1"
        with pytest.raises(ConfigError, match="there is no context 'main'") as caught:
            connect(str(path))
        assert caught.value.hint == "contexts: other"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not YAML"),
            ("[]", "is not a mapping"),
            (config(**{"current-context": ""}), "no current-context is set"),
            (config(contexts=[{"name": "main", "context": {"user": "u"}}]), 'context "main": names no cluster'),
            (config(clusters=[]), "names cluster 'c', which no file defines"),
            (config(users=[]), "names user 'u', which no file defines"),
            (config(clusters=[{"name": "c", "cluster": {}}]), 'cluster "c": has no server'),
            (config(user={"client-certificate-data": "x"}), "client-certificate-data is not base64"),
            (config(user={"client-key": "absent.key"}), "client-key: cannot read .*absent.key: No such file"),
            (config(cluster={"certificate-authority": "ca.crt"}), "certificate-authority: cannot read .*ca.crt"),
            (config("https://h", cluster={"certificate-authority-data": "eA=="}), "not a PEM certificate"),
            (config(user={"tokenFile": "absent"}), "cannot read the token file .*absent"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, content: Any, message: str) -> None:
        path = write(tmp_path / "k", content)
        with pytest.raises(ConfigError, match=message) as caught:
            connect(str(path))
        assert str(tmp_path) in caught.value.message or "https://h" in caught.value.message

    def test_half_a_client_certificate(self, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
        path = write(tmp_path / "k", config(user={"client-certificate": str(certificate[0])}))
        with pytest.raises(ConfigError, match="must both be set"):
            connect(str(path))

    def test_no_file_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read the kubeconfig .*absent: No such file") as caught:
            connect(str(tmp_path / "absent"))
        assert "--kubeconfig" in caught.value.hint
        with pytest.raises(ConfigError, match=r"\.kube/config"):
            connect()


class TestInCluster:
    @pytest.fixture(autouse=True)
    def _in_a_pod(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")

    def test_the_service_account(self, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
        certificate[0].rename(tmp_path / "ca.crt")
        (tmp_path / "token").write_text("abc")
        assert connect(service_account=tmp_path).url == "https://[fd00::1]:6443"

    def test_what_is_missing_is_named(self, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
        with pytest.raises(ConfigError, match=r"ca\.crt cannot be read"):
            connect(service_account=tmp_path)
        certificate[0].rename(tmp_path / "ca.crt")
        with pytest.raises(ConfigError, match=r"cannot read the token file .*token"):
            connect(service_account=tmp_path)

    def test_a_kubeconfig_that_is_asked_for_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "k", config("http://127.0.0.1:4"))
        assert connect(str(path)).url == "http://127.0.0.1:4"
        monkeypatch.setenv("KUBECONFIG", str(path))
        assert connect().url == "http://127.0.0.1:4"


def test_static_credentials_need_no_official_client(tmp_path: Path) -> None:
    path = write(tmp_path / "k", config(user={"token": "abc"}))
    script = (
        "import sys\n"
        "from dra_driver.kube.connect import connect\n"
        f"connect({str(path)!r})\n"
        "heavy = {'kubernetes', 'requests', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
