"""Access as somebody else: a service account's token in a kubeconfig of its own, and what RBAC allows an account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dra_driver.kube.cluster import ClusterApi
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import KubeApi, Obj, Resource
from e2e.kit.kubectl import Kubectl

_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False, has_status=True
)


def as_account(kubectl: Kubectl, folder: Path, namespace: str, account: str, pod: Obj | None = None) -> ClusterApi:
    """The API as that service account. A token bound to ``pod`` names the pod's node, as the pod's own token does."""
    bound = []
    if pod is not None:
        metadata = pod["metadata"]
        bound = [
            "--bound-object-kind=Pod",
            f"--bound-object-name={metadata['name']}",
            f"--bound-object-uid={metadata['uid']}",
        ]
    token = kubectl.run("-n", namespace, "create", "token", account, "--duration=10m", *bound).strip()
    config = json.loads(kubectl.run("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    path = folder / f"{account}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(with_token(config, token)))
    return connect(str(path))


def with_token(config: dict[str, Any], token: str) -> dict[str, Any]:
    """A kubeconfig of one context, with that token in place of its user's credentials."""
    return {**config, "users": [{"name": user["name"], "user": {"token": token}} for user in config["users"]]}


def may(api: KubeApi, user: str, groups: list[str], verb: str, resource: Resource, name: str = "") -> bool:
    """Whether RBAC lets ``user`` do that, in all namespaces."""
    plural, _, subresource = resource.plural.partition("/")
    attributes = {"group": resource.group, "version": resource.version, "resource": plural, "verb": verb, "name": name}
    if subresource:
        attributes["subresource"] = subresource
    body = {"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}}
    return bool(api.create(_REVIEWS, body)["status"]["allowed"])
