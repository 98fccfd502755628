"""Which resources exist beside the ones the project itself uses, what is special about each, and their REST paths.

Relies on nothing but the interface. ``cluster`` and the simulated API server build and read the same paths; the
simulated store asks :func:`traits` how the real server treats a kind (source: the strategy of each kind in
kubernetes/pkg/registry, checked by ``tests/contract`` against a real server).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from dra_driver.kube import interface as kube
from dra_driver.kube.interface import Resource

SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
SERVICES = Resource("", "v1", "services", "Service", namespaced=True, has_status=True)
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", namespaced=True, has_status=True)
DEVICE_TAINT_RULES = Resource(
    "resource.k8s.io", "v1", "devicetaintrules", "DeviceTaintRule", namespaced=False, has_status=True
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", namespaced=True)
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", namespaced=True)
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", namespaced=True, has_status=True)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True, has_status=True)
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
ADMISSION_POLICIES = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
    has_status=True,
)
ADMISSION_POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)

BUILT_IN: tuple[Resource, ...] = (
    kube.NODES,
    kube.NAMESPACES,
    kube.PODS,
    kube.EVENTS,
    kube.CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    SECRETS,
    SERVICES,
    RESOURCE_QUOTAS,
    kube.RESOURCE_SLICES,
    kube.RESOURCE_CLAIMS,
    kube.RESOURCE_CLAIM_TEMPLATES,
    kube.DEVICE_CLASSES,
    DEVICE_TAINT_RULES,
    kube.LEASES,
    kube.CUSTOM_RESOURCE_DEFINITIONS,
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    DAEMON_SETS,
    DEPLOYMENTS,
    PRIORITY_CLASSES,
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
)
OWN: tuple[Resource, ...] = (kube.NODE_INVENTORIES,)


@dataclass(frozen=True, slots=True)
class Traits:
    """How the real server treats one resource.

    ``fields`` are the field selectors beside metadata.name and metadata.namespace. ``counts_generation``: the server
    sets ``metadata.generation``. ``needs_version``: an update without a resourceVersion is refused.
    ``creates_on_update``: an update of an absent object creates it. ``keeps_status_on_create``: only nodes do, since
    the kubelet creates its node with a status.
    """

    fields: frozenset[str] = frozenset()
    counts_generation: bool = False
    needs_version: bool = False
    creates_on_update: bool = False
    keeps_status_on_create: bool = False


_TRAITS: dict[tuple[str, str], Traits] = {
    ("", "pods"): Traits(
        frozenset(
            {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase"}
        ),
        counts_generation=True,
    ),
    ("", "nodes"): Traits(frozenset({"spec.unschedulable"}), keeps_status_on_create=True),
    ("", "namespaces"): Traits(frozenset({"status.phase"})),
    ("", "secrets"): Traits(frozenset({"type"})),
    ("", "events"): Traits(
        frozenset(
            {
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            }
        ),
        creates_on_update=True,
    ),
    ("resource.k8s.io", "resourceslices"): Traits(
        frozenset({"spec.nodeName", "spec.driver", "spec.pool.name"}), counts_generation=True
    ),
    ("resource.k8s.io", "deviceclasses"): Traits(counts_generation=True),
    ("resource.k8s.io", "devicetaintrules"): Traits(counts_generation=True),
    ("coordination.k8s.io", "leases"): Traits(needs_version=True, creates_on_update=True),
    ("apiextensions.k8s.io", "customresourcedefinitions"): Traits(counts_generation=True, needs_version=True),
    ("apps", "daemonsets"): Traits(counts_generation=True),
    ("apps", "deployments"): Traits(counts_generation=True),
    ("scheduling.k8s.io", "priorityclasses"): Traits(counts_generation=True),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): Traits(counts_generation=True),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): Traits(counts_generation=True),
}
_PLAIN = Traits()
_CUSTOM = Traits(counts_generation=True, needs_version=True)
_BUILT_IN_TYPES = frozenset((r.group, r.plural) for r in BUILT_IN)


def traits(resource: Resource) -> Traits:
    """The traits of a resource; everything that is not built in is a custom resource."""
    key = (resource.group, resource.plural)
    if key not in _BUILT_IN_TYPES:
        return _CUSTOM
    return _TRAITS.get(key, _PLAIN)


def qualified_name(resource: Resource) -> str:
    """``resourceslices.resource.k8s.io``, ``pods``: how the server names a resource in messages."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def qualified_kind(resource: Resource) -> str:
    """``ResourceSlice.resource.k8s.io``, ``Pod``: how the server names a kind in validation messages."""
    return f"{resource.kind}.{resource.group}" if resource.group else resource.kind


def collection_path(resource: Resource, namespace: str | None = None) -> str:
    """``/apis/resource.k8s.io/v1/namespaces/ml/resourceclaims``; all namespaces when ``namespace`` is None."""
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if resource.namespaced and namespace is not None:
        return f"{root}/namespaces/{quote(namespace, safe='')}/{resource.plural}"
    return f"{root}/{resource.plural}"


def object_path(resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> str:
    """The path of one object, or of its subresource."""
    path = f"{collection_path(resource, namespace)}/{quote(name, safe='')}"
    return f"{path}/{subresource}" if subresource else path
