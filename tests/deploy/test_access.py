"""Who may do what: RBAC is what the code asks for, no more and no less, and the policy names the right account."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import Obj
from tests.deploy import helm, requests
from tests.deploy.helm import Rendered

SHARED = "dra_driver/observability/events.py"
CODE = {
    "controller": ("controller", "dra_driver/kube/election.py", SHARED),
    "kubelet-plugin": ("kubelet_plugin", SHARED),
}
FINER = ("resource.k8s.io", "resourceclaims/driver", "associated-node:patch")


def granted(rendered: Rendered, component: str) -> frozenset[requests.Request]:
    roles = [
        role
        for kind in ("ClusterRole", "Role")
        for role in rendered.all(kind)
        if role["metadata"]["name"].endswith(component)
    ]
    return frozenset(
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


@pytest.mark.parametrize("component", sorted(CODE))
def test_each_process_may_do_what_its_code_does_and_nothing_else(default: Rendered, component: str) -> None:
    assert granted(default, component) - {FINER} == requests.requests_of(*CODE[component])


def test_the_plugin_may_say_of_its_own_nodes_devices_how_they_are_fenced(default: Rendered) -> None:
    """What newer servers ask for beside the patch of resourceclaims/status that the code makes (KEP-4817)."""
    (role,) = (each for each in default.all("ClusterRole") if each["metadata"]["name"].endswith("kubelet-plugin"))
    (rule,) = (each for each in role["rules"] if "resourceclaims/driver" in each["resources"])
    assert (rule["resourceNames"], rule["verbs"]) == (["gpu.nvidia.com"], ["associated-node:patch"])


def test_the_plugin_has_no_word_in_slices(default: Rendered) -> None:
    assert "resourceslices" not in {resource for _, resource, _ in granted(default, "kubelet-plugin")}


def test_rules_have_no_wildcards(default: Rendered) -> None:
    for component in CODE:
        assert all("*" not in request for request in granted(default, component))


def test_only_its_own_lease_is_the_controllers(default: Rendered) -> None:
    role = default.one("Role")
    named = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert [(rule["resourceNames"], rule["verbs"]) for rule in named] == [(["gpu-dra-controller"], ["get", "update"])]
    assert role["metadata"]["namespace"] == "gpu-dra"


@pytest.mark.parametrize(
    ("name", "rules"), [(None, ["time-slicing-config"]), ("plugin-config", ["plugin-config"]), ("", [])]
)
def test_one_config_map_is_what_the_controller_may_read(needs_helm: None, name: str | None, rules: list[str]) -> None:
    chosen = () if name is None else ("--set", f"sharing.devicePluginConfig.name={name}")
    role = next(
        each for each in helm.render(*chosen).all("ClusterRole") if each["metadata"]["name"].endswith("controller")
    )
    found = [rule for rule in role["rules"] if "configmaps" in rule["resources"]]
    assert [each for rule in found for each in rule["resourceNames"]] == rules
    assert all(rule["verbs"] == ["list", "watch"] for rule in found)


def test_the_lease_of_the_configuration_is_the_one_that_is_allowed(needs_helm: None) -> None:
    setting = "config.controller.leaderElection"
    rendered = helm.render("--set", f"{setting}.leaseName=mine,{setting}.namespace=leases")
    role = rendered.one("Role")
    assert role["metadata"]["namespace"] == rendered.one("RoleBinding")["metadata"]["namespace"] == "leases"
    assert {name for rule in role["rules"] for name in rule.get("resourceNames", [])} == {"mine"}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--set", "serviceAccount.name=other"),
        ("--set", "fullnameOverride=x", "--set", "namespaceOverride=elsewhere"),
    ],
    ids=["default", "named", "overrides"],
)
def test_bindings_and_the_policy_name_the_accounts_of_the_pods(needs_helm: None, arguments: tuple[str, ...]) -> None:
    rendered = helm.render(*arguments)
    daemon_set = rendered.workload("kubelet-plugin")
    account, namespace = rendered.pod("kubelet-plugin")["serviceAccountName"], daemon_set["metadata"]["namespace"]
    policy = rendered.one("ValidatingAdmissionPolicy")["spec"]
    assert [condition["expression"] for condition in policy["matchConditions"]] == [
        f'request.userInfo.username == "system:serviceaccount:{namespace}:{account}"'
    ]
    with_rights = {account, rendered.pod("controller")["serviceAccountName"]}
    without = rendered.pod("mps-supervisor")["serviceAccountName"]
    assert {obj["metadata"]["name"] for obj in rendered.all("ServiceAccount")} == with_rights | {without}
    subjects = [
        subject
        for kind in ("ClusterRoleBinding", "RoleBinding")
        for binding in rendered.all(kind)
        for subject in binding["subjects"]
    ]
    assert {(subject["name"], subject["namespace"]) for subject in subjects} == {(a, namespace) for a in with_rights}


def test_bindings_are_of_roles_that_exist(default: Rendered) -> None:
    for binding in (*default.all("ClusterRoleBinding"), *default.all("RoleBinding")):
        reference = binding["roleRef"]
        role = default.one(reference["kind"], binding["metadata"]["name"])
        assert role["metadata"]["name"] == reference["name"]


def test_the_policy_covers_every_write_of_an_inventory_and_fails_closed(default: Rendered) -> None:
    policy: Obj = default.one("ValidatingAdmissionPolicy")["spec"]
    assert policy["failurePolicy"] == "Fail"
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert set(rule["operations"]) == {"CREATE", "UPDATE", "DELETE"}
    assert set(rule["resources"]) == {"nodeinventories", "nodeinventories/status"}
    binding = default.one("ValidatingAdmissionPolicyBinding")["spec"]
    assert binding == {
        "policyName": default.one("ValidatingAdmissionPolicy")["metadata"]["name"],
        "validationActions": ["Deny"],
    }
