"""From a kubeconfig or a pod's service account to a ``ClusterApi``.

Without a kubeconfig: ``$KUBECONFIG`` if set, else the service account when in a pod, else ``~/.kube/config``. The
official client is imported only for users that log in through a command or a provider (exec, auth-provider, OIDC); its
generated models are never touched. The driver's image does not have it: no pod has such a kubeconfig.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dra_driver.errors import ConfigError
from dra_driver.kube import kubeconfig as kubeconfigs
from dra_driver.kube.cluster import DEFAULT_TIMEOUT, ClusterApi
from dra_driver.kube.cluster_transport import Endpoint, Transport
from dra_driver.kube.credentials import RefreshedHeaders, TokenFile
from dra_driver.kube.interface import Unauthorized

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def connect(
    kubeconfig: str | None = None,
    *,
    context: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    service_account: Path = SERVICE_ACCOUNT,
) -> ClusterApi:
    """No request is sent yet. Raises ConfigError naming the file, the context and what is missing."""
    if kubeconfig is None and not os.environ.get("KUBECONFIG") and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return ClusterApi(_in_cluster(service_account), timeout=timeout)
    paths = kubeconfigs.default_paths() if kubeconfig is None else [Path(kubeconfig).expanduser()]
    return ClusterApi(_from_kubeconfig(paths, context), timeout=timeout)


def _in_cluster(service_account: Path) -> Transport:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    authority = service_account / "ca.crt"
    try:
        ca = authority.read_text()
    except OSError as error:
        raise ConfigError(
            f"in a pod (KUBERNETES_SERVICE_HOST is set), but {authority} cannot be read: {error.strerror}",
            hint="set automountServiceAccountToken, or pass --kubeconfig",
        ) from error
    token = TokenFile(service_account / "token")
    token.headers()  # an unreadable token is said here, not at the first request
    address = f"[{host}]" if ":" in host else host
    return Transport(Endpoint(f"https://{address}:{port}", ca=ca), token)


def _from_kubeconfig(paths: list[Path], context: str | None) -> Transport:
    login = kubeconfigs.load(paths, context)
    if login.credentials is not None:
        login.credentials.headers()  # an unreadable token file is said here, not at the first request
        return Transport(login.endpoint, login.credentials)
    return _through_official_client(paths, login)


def _through_official_client(paths: list[Path], login: kubeconfigs.Login) -> Transport:
    """Log in with ``kubernetes.config``; it renews tokens when they end, asked before every request.

    A client certificate that an exec plugin issues is read once: the official client never renews it.
    """
    files = os.pathsep.join(str(path) for path in paths)
    try:
        from kubernetes import config
        from kubernetes.client import Configuration
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"kubeconfig {files}: context {login.context!r} logs in by a command or a provider, and the Python "
            f"package {error.name}, which does that, is missing",
            hint="use a kubeconfig with a token or a client certificate, or run this where gpu-dra was installed with "
            "all that it depends on; the driver's image leaves this package out",
        ) from error

    settings: Any = Configuration()
    load: Any = config.load_kube_config  # untyped
    try:
        load(files, login.context, client_configuration=settings, persist_config=False)
    except (config.ConfigException, OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"kubeconfig {files}: context {login.context!r}: the login failed: {error}",
            hint="run kubectl with this context to see what it needs",
        ) from error
    endpoint = login.endpoint
    if settings.cert_file and settings.key_file and not endpoint.client_certificate:
        endpoint = Endpoint(
            url=endpoint.url,
            ca=endpoint.ca,
            verify=endpoint.verify,
            server_name=endpoint.server_name,
            client_certificate=Path(settings.cert_file).read_text(),
            client_key=Path(settings.key_file).read_text(),
            proxy=endpoint.proxy,
        )
    return Transport(endpoint, RefreshedHeaders(lambda: _authorization(settings)))


def _authorization(settings: Any) -> str | None:
    from kubernetes.config import ConfigException

    try:
        value = settings.get_api_key_with_prefix("BearerToken", alias="authorization")
    except (ConfigException, OSError, ValueError, KeyError) as error:
        raise Unauthorized(f"the login for {settings.host} could not be renewed: {error}") from error
    return str(value) if value else None
