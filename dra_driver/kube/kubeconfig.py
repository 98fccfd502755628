"""kubeconfig files: which server, which certificates, which user, for one context.

Files are merged as kubectl merges ``$KUBECONFIG`` (the first file that has an entry wins; relative paths are relative
to the file that names them). Static credentials are read here; a user that logs in through a command or a provider is
marked, and ``connect`` hands the same files to the official client.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dra_driver.errors import ConfigError
from dra_driver.kube.cluster_transport import Endpoint
from dra_driver.kube.credentials import Credentials, FixedHeaders, TokenFile

_PROVIDERS = ("exec", "auth-provider")


@dataclass(frozen=True, slots=True)
class Login:
    """A resolved context. ``credentials`` is None when only the official client can log this user in."""

    context: str
    endpoint: Endpoint
    credentials: Credentials | None


@dataclass(frozen=True, slots=True)
class _Entry:
    file: Path
    what: str  # 'user "admin"', for messages
    fields: dict[str, Any]

    def problem(self, text: str, *, hint: str = "") -> ConfigError:
        return ConfigError(f"kubeconfig {self.file}: {self.what}: {text}", hint=hint)

    def path(self, field: str) -> Path | None:
        value = self.fields.get(field)
        return self.file.parent / str(value) if value else None

    def text(self, field: str) -> str | None:
        """The content of ``<field>-data`` (base64) or of the file that ``<field>`` names."""
        data = self.fields.get(f"{field}-data")
        if data:
            try:
                return base64.b64decode(data, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError, TypeError) as error:
                raise self.problem(f"{field}-data is not base64 of PEM text") from error
        path = self.path(field)
        if path is None:
            return None
        try:
            return path.read_text()
        except OSError as error:
            raise self.problem(f"{field}: cannot read {path}: {error.strerror}") from error


def default_paths() -> list[Path]:
    """``$KUBECONFIG``, else ``~/.kube/config``."""
    listed = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return listed or [Path("~/.kube/config").expanduser()]


def load(paths: Sequence[Path], context: str | None = None) -> Login:
    """Raises ConfigError naming the file, the context and what is missing or unreadable."""
    documents = [(path, _read(path)) for path in paths if len(paths) == 1 or path.exists()]
    names = ", ".join(str(path) for path in paths)
    if not documents:
        raise ConfigError(f"no kubeconfig exists at {names}", hint="pass --kubeconfig or set KUBECONFIG")
    chosen = context or next((d["current-context"] for _, d in documents if d.get("current-context")), None)
    if not chosen:
        raise ConfigError(f"kubeconfig {names}: no current-context is set", hint="kubectl config use-context NAME")
    known = sorted({str(c.get("name")) for _, d in documents for c in _list(d, "contexts")})
    found = _find(documents, "context", chosen)
    if found is None:
        raise ConfigError(f"kubeconfig {names}: there is no context {chosen!r}", hint=f"contexts: {', '.join(known)}")
    cluster = _named(documents, found, "cluster")
    user = _named(documents, found, "user")
    return Login(chosen, _endpoint(cluster, user), _credentials(user))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the kubeconfig {path}: {error.strerror}", hint="pass --kubeconfig or set KUBECONFIG"
        ) from error
    try:
        document = json.loads(data)
    except ValueError:
        document = _read_yaml(path, data)
    if not isinstance(document, dict):
        raise ConfigError(f"the kubeconfig {path} is not a mapping")
    return document


def _read_yaml(path: Path, data: bytes) -> Any:
    import yaml  # here: 1 MiB that a plugin with a kubeconfig in JSON, or with none, does not need

    from dra_driver.yaml_loader import SAFE_LOADER

    try:
        return yaml.load(data, Loader=SAFE_LOADER)  # noqa: S506 - it is safe
    except yaml.YAMLError as error:
        raise ConfigError(f"the kubeconfig {path} is not YAML: {error}") from error


def _list(document: dict[str, Any], field: str) -> list[dict[str, Any]]:
    entries = document.get(field) or []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _find(documents: list[tuple[Path, dict[str, Any]]], kind: str, name: str) -> _Entry | None:
    for path, document in documents:
        for entry in _list(document, f"{kind}s"):
            if entry.get("name") == name:
                fields = entry.get(kind)
                return _Entry(path, f'{kind} "{name}"', fields if isinstance(fields, dict) else {})
    return None


def _named(documents: list[tuple[Path, dict[str, Any]]], context: _Entry, kind: str) -> _Entry:
    name = context.fields.get(kind)
    if not name:
        raise context.problem(f"names no {kind}")
    found = _find(documents, kind, name)
    if found is None:
        raise context.problem(f"names {kind} {name!r}, which no file defines")
    return found


def _endpoint(cluster: _Entry, user: _Entry) -> Endpoint:
    server = cluster.fields.get("server")
    if not server:
        raise cluster.problem("has no server")
    certificate, key = user.text("client-certificate"), user.text("client-key")
    if bool(certificate) != bool(key):
        raise user.problem("client-certificate and client-key must both be set")
    return Endpoint(
        url=str(server),
        ca=cluster.text("certificate-authority"),
        verify=not cluster.fields.get("insecure-skip-tls-verify"),
        server_name=cluster.fields.get("tls-server-name"),
        client_certificate=certificate,
        client_key=key,
        proxy=cluster.fields.get("proxy-url"),
    )


def _credentials(user: _Entry) -> Credentials | None:
    if any(user.fields.get(provider) for provider in _PROVIDERS):
        return None
    token_file = user.path("tokenFile")
    if token_file is not None:
        return TokenFile(token_file)
    if user.fields.get("token"):
        return FixedHeaders.token(str(user.fields["token"]))
    if user.fields.get("username"):
        return FixedHeaders.basic(str(user.fields["username"]), str(user.fields.get("password") or ""))
    return FixedHeaders.none()
