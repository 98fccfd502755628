"""Documents handed to kind and taken from it: the cluster's configuration, kubeconfigs. Pure functions."""

from __future__ import annotations

from typing import Any

import yaml

from e2e.clusters.interface import ClusterError


def with_workers(configuration: str, workers: int) -> str:
    """kind's configuration with ``workers`` worker nodes in place of the ones that it has."""
    document = _mapping(configuration, "kind's configuration")
    nodes = document.get("nodes") or [{"role": "control-plane"}]
    planes = [node for node in nodes if node.get("role") == "control-plane"]
    models = [node for node in nodes if node.get("role") == "worker"]
    document["nodes"] = [*planes, *({**(models[0] if models else {"role": "worker"})} for _ in range(workers))]
    return yaml.safe_dump(document, sort_keys=False)


def api_server(kubeconfig: str) -> tuple[str, int]:
    """Host and port of the only cluster in a kubeconfig."""
    server = str(_cluster(_mapping(kubeconfig, "kubeconfig"))["server"])
    host, colon, port = server.removeprefix("https://").rstrip("/").rpartition(":")
    if not colon or not port.isdecimal():
        raise ClusterError(f"kubeconfig: the server {server!r} is no https://HOST:PORT")
    return host, int(port)


def with_server(kubeconfig: str, port: int) -> str:
    """The kubeconfig by way of a forwarder on 127.0.0.1; the certificate is verified for the name it was made for."""
    document = _mapping(kubeconfig, "kubeconfig")
    host, _ = api_server(kubeconfig)
    cluster = _cluster(document)
    cluster["server"] = f"https://127.0.0.1:{port}"
    cluster["tls-server-name"] = host
    return yaml.safe_dump(document, sort_keys=False)


def _cluster(document: dict[str, Any]) -> dict[str, Any]:
    clusters = document.get("clusters") or []
    if len(clusters) != 1:
        raise ClusterError(f"kubeconfig: expected one cluster, found {len(clusters)}")
    cluster: dict[str, Any] = clusters[0]["cluster"]
    return cluster


def _mapping(text: str, what: str) -> dict[str, Any]:
    document = yaml.safe_load(text)
    if not isinstance(document, dict):
        raise ClusterError(f"{what} is no mapping")
    return document
