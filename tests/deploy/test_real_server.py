"""The rendered objects and the policy on a real API server: strict dry runs, and who may write which NodeInventory.

Requests of the plugin's service account are made by impersonation, with the node name that a pod's token would carry.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
import yaml

from dra_driver.kube.interface import Obj
from e2e.clusters import programs
from tests.contract import real_server
from tests.deploy import helm, manifests

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("real-api")]

GROUP = "/apis/gpu-dra.dev/v1alpha1/nodeinventories"
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    body: Obj

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class Server:
    """Plain requests to the API server of a kubeconfig, as its user or as somebody else."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._url = cluster["server"]
        self._token = config["users"][0]["user"]["token"]
        self._pool = urllib3.PoolManager(ca_certs=str(kubeconfig.parent / cluster["certificate-authority"]))
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    def request(self, method: str, path: str, body: Obj | None = None, headers: dict[str, str] | None = None) -> Answer:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        response = self._pool.request(method, self._url + path, body=data, headers=sent, retries=False, timeout=20.0)
        if not response.headers.get("Content-Type", "").startswith("application/json"):
            # A path that is not served yet, as that of a new CustomResourceDefinition, is answered in plain text.
            return Answer(response.status, {"message": response.data.decode()})
        return Answer(response.status, json.loads(response.data))

    def collection(self, obj: Obj) -> str:
        """Where objects like this one are created, as the server's discovery says."""
        version, kind = obj["apiVersion"], obj["kind"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self._kinds:
            for resource in self.request("GET", root).body["resources"]:
                if "/" not in resource["name"]:
                    self._kinds[version, resource["kind"]] = (resource["name"], resource["namespaced"])
        plural, namespaced = self._kinds[version, kind]
        return f"{root}/namespaces/{obj['metadata']['namespace']}/{plural}" if namespaced else f"{root}/{plural}"

    def create(self, obj: Obj, query: str = "") -> Answer:
        return self.request("POST", f"{self.collection(obj)}?fieldValidation=Strict{query}", obj)


# Not for the session: they cost processor time for as long as they run.
@pytest.fixture(scope="module", params=programs.kubernetes_minors())
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = real_server.find_binaries(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    with real_server.running(found, tmp_path_factory.mktemp("chart-apiserver")) as kubeconfig:
        yield Server(kubeconfig)


def plain_manifest(name: str) -> list[Obj]:
    return list(helm.documents((manifests.FOLDER / name).read_text()))


@pytest.fixture(scope="module")
def namespace(server: Server) -> None:
    created = server.create(plain_manifest("gpu-dra.yaml")[0])
    assert created.code == 201, created.message


@pytest.mark.parametrize("name", sorted(manifests.FILES))
@pytest.mark.usefixtures("namespace")
def test_every_object_of_the_manifests_is_accepted(server: Server, name: str) -> None:
    refused = {}
    for obj in plain_manifest(name)[1:]:
        answer = server.create(obj, "&dryRun=All")
        # 409: the policy tests have made it already.
        if answer.code not in (201, 409):
            refused[f"{obj['kind']} {obj['metadata']['name']}"] = answer.message
    assert not refused


@pytest.mark.usefixtures("namespace", "needs_helm")
def test_every_object_with_every_switch_on_is_accepted(server: Server) -> None:
    rendered = helm.render(
        "--set", "config.observability.logFormat=json,featureGates.ContextualLogging=true,image.tag=x",
        "--set", "controller.topologySpreadConstraints[0].maxSkew=1,networkPolicy.ingressFrom[0].podSelector.matchLabels.a=b",
        "--set", "controller.topologySpreadConstraints[0].topologyKey=zone",
        "--set", "controller.topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
        "--set", "simulated.enabled=true,simulated.machines.a=h200,kubeletPlugin.updateStrategy.rollingUpdate.maxUnavailable=1",
        "--set", "controller.podAnnotations.a=b,kubeletPlugin.podLabels.c=d,kubeletPlugin.nodeSelector.e=f",
    )  # fmt: skip
    answers = {obj["kind"]: server.create(obj, "&dryRun=All") for obj in rendered.objects}
    assert not {kind: answer.message for kind, answer in answers.items() if answer.code not in (201, 409)}


# -- the policy ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plugin:
    """A service account's requests; ``node`` as in its pod's token, None for a token that is bound to no pod."""

    server: Server
    node: str | None
    account: str = "gpu-dra-kubelet-plugin"

    def request(self, method: str, path: str, body: Obj | None = None) -> Answer:
        headers = {"Impersonate-User": f"system:serviceaccount:gpu-dra:{self.account}"}
        if self.node is not None:
            key = urllib.parse.quote("authentication.kubernetes.io/node-name", safe="")
            headers[f"Impersonate-Extra-{key}"] = self.node
        return self.server.request(method, GROUP + path, body, headers)

    def create(self, name: str, spec: Obj | None = None) -> Answer:
        return self.request("POST", "", inventory(name, {} if spec is None else spec))

    def patch(self, path: str, body: Obj) -> Answer:
        return self.request("PATCH", path, body)


def inventory(name: str, spec: Obj) -> Obj:
    return {"apiVersion": "gpu-dra.dev/v1alpha1", "kind": "NodeInventory", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def policy(server: Server, namespace: None) -> Server:
    """The server with CRD and policy in force, and one inventory of node-b, made by its plugin."""
    kinds = ("CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    for obj in plain_manifest("gpu-dra.yaml"):
        if obj["kind"] in kinds:
            created = server.create(obj)
            assert created.code == 201, created.message
    give_up = time.monotonic() + SECONDS
    # The server sees its new policies after a moment.
    while not (answer := Plugin(server, "node-a").create("probe")).message.startswith("nodeinventories"):
        assert time.monotonic() < give_up, f"the policy is not in force: {answer}"
        server.request("DELETE", f"{GROUP}/probe")
        time.sleep(0.2)
    assert Plugin(server, "node-b").create("node-b").code == 201
    return server


def denied(answer: Answer, reason: str) -> bool:
    assert answer.code == 422, answer
    assert reason in answer.message
    return True


def test_a_plugin_writes_the_inventory_of_its_own_node(policy: Server) -> None:
    plugin = Plugin(policy, "node-own")
    assert plugin.create("node-own").code == 201
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node-own", "uid": "1"}
    assert plugin.patch("/node-own", {"metadata": {"ownerReferences": [owner]}}).code == 200
    written = plugin.patch("/node-own/status", {"status": {"answer": "a"}})
    assert (written.code, written.body["status"]) == (200, {"answer": "a"})
    assert plugin.request("DELETE", "/node-own").code == 200


def test_a_plugin_writes_no_other_nodes_inventory(policy: Server) -> None:
    plugin = Plugin(policy, "node-a")
    reason = "the plugin of node node-a may write NodeInventory node-a only, not node-b"
    assert denied(plugin.patch("/node-b", {"metadata": {"labels": {"a": "b"}}}), reason)
    assert denied(plugin.patch("/node-b/status", {"status": {"answer": "forged"}}), reason)
    assert denied(plugin.request("DELETE", "/node-b"), reason)
    assert denied(plugin.create("node-c"), "NodeInventory node-a only, not node-c")


def test_a_plugin_does_not_write_the_challenge(policy: Server) -> None:
    plugin = Plugin(policy, "node-b")
    reason = "spec of a NodeInventory is the controller's"
    assert denied(plugin.patch("/node-b", {"spec": {"challenge": "mine"}}), reason)
    assert denied(Plugin(policy, "node-d").create("node-d", {"challenge": "mine"}), reason)


def test_the_challenge_of_the_controller_stays_under_the_plugins_writes(policy: Server) -> None:
    controller = Plugin(policy, "node-a", "gpu-dra-controller")
    assert controller.patch("/node-b", {"spec": {"challenge": "c"}}).code == 200
    plugin = Plugin(policy, "node-b")
    assert denied(plugin.patch("/node-b", {"spec": {"challenge": None}}), "spec of a NodeInventory")
    assert plugin.patch("/node-b/status", {"status": {"answer": "c"}}).code == 200
    assert plugin.patch("/node-b", {"metadata": {"labels": {"a": "b"}}}).body["spec"] == {"challenge": "c"}


def test_a_token_that_is_bound_to_no_node_writes_nothing(policy: Server) -> None:
    answer = Plugin(policy, None).patch("/node-b/status", {"status": {"answer": "x"}})
    assert denied(answer, "names no node: only a token that is bound to the plugin's pod may write a NodeInventory")


def test_others_are_not_the_policys_business(policy: Server) -> None:
    assert Plugin(policy, None, "somebody").patch("/node-b/status", {"status": {"answer": "y"}}).code == 200
