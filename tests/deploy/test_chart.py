"""What the chart renders: pods, updates, probes, simulated GPUs, classes, names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.driver_config import decode
from api.settings import IDENTITY, SETTINGS, Process
from dra_driver.simulation.hardware.description import recorded_machines
from dra_driver.simulation.manifests import device_classes
from dra_driver.version import __version__
from tests.deploy import helm, manifests
from tests.deploy.helm import Rendered, env_of

FOLDER = "/var/lib/gpu-dra/simulated"
# Containers by component.
PODS = {"controller": "controller", "kubelet-plugin": "gpus", "mps-supervisor": "supervisor"}


def container(rendered: Rendered, component: str) -> dict[str, Any]:
    (only,) = rendered.pod(component)["containers"]
    assert only["name"] == PODS[component]
    found: dict[str, Any] = only
    return found


def volumes(rendered: Rendered) -> dict[str, tuple[str, str]]:
    """Each host path of the plugin's pod: where it is on the host and in the container ``gpus``."""
    pod = rendered.pod("kubelet-plugin")
    inside = {mount["name"]: mount["mountPath"] for mount in container(rendered, "kubelet-plugin")["volumeMounts"]}
    return {
        volume["name"]: (volume["hostPath"]["path"], inside[volume["name"]])
        for volume in pod["volumes"]
        if "hostPath" in volume
    }


def test_the_chart_passes_lint(needs_helm: None) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", "--namespace", helm.NAME, str(helm.CHART))


def test_the_version_is_the_drivers() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("name", sorted(manifests.FILES))
def test_plain_manifests_are_current(needs_helm: None, name: str) -> None:
    assert (manifests.FOLDER / name).read_text() == manifests.manifest(name), "run `make manifests`"


# -- pods ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "process"),
    [
        ("controller", Process.CONTROLLER),
        ("kubelet-plugin", Process.PLUGIN),
        ("mps-supervisor", Process.SUPERVISOR),
    ],
)
def test_variables_are_those_that_the_process_knows(default: Rendered, component: str, process: Process) -> None:
    known = {setting.env for setting in SETTINGS if setting.process.serves(process)}
    known |= {value.env for value in IDENTITY if value.process.serves(process)}
    of_the_runtime = {"NVIDIA_VISIBLE_DEVICES"}
    assert set(env_of(container(default, component))) - of_the_runtime <= known


def test_pods_are_told_who_they_are(default: Rendered) -> None:
    plugin = env_of(container(default, "kubelet-plugin"))
    assert plugin["NODE_NAME"] == "<spec.nodeName>"
    assert plugin["POD_UID"] == "<metadata.uid>"
    for component in ("controller", "kubelet-plugin"):
        variables = env_of(container(default, component))
        assert (variables["POD_NAME"], variables["NAMESPACE"]) == ("<metadata.name>", "<metadata.namespace>")


def test_an_update_starts_the_new_plugin_before_it_stops_the_old(default: Rendered) -> None:
    assert default.workload("kubelet-plugin")["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert not default.pod("kubelet-plugin").get("hostNetwork")  # two pods of one node must not share a port


def test_a_strategy_for_nvidias_chart_is_one_that_kubernetes_takes(needs_helm: None) -> None:
    rendered = helm.render("--set", "kubeletPlugin.updateStrategy.rollingUpdate.maxUnavailable=100%")
    assert rendered.workload("kubelet-plugin")["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "100%"}


def test_probes_ask_the_port_that_the_process_serves(needs_helm: None) -> None:
    rendered = helm.render(
        "--set", "controller.metrics.httpEndpoint=:9001,kubeletPlugin.metrics.gpuHttpEndpoint=:9002",
        "--set", "mpsSupervisor.metrics.httpEndpoint=:9003",
    )  # fmt: skip
    for component, port in (("controller", 9001), ("kubelet-plugin", 9002), ("mps-supervisor", 9003)):
        found = container(rendered, component)
        assert env_of(found)["HTTP_ENDPOINT"] == f":{port}"
        assert found["ports"] == [{"name": "metrics", "containerPort": port}]
        paths = {probe: found[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert paths == {
            "startupProbe": {"path": "/healthz", "port": "metrics"},
            "livenessProbe": {"path": "/healthz", "port": "metrics"},
            "readinessProbe": {"path": "/readyz", "port": "metrics"},
        }
        service = rendered.one("Service", f"{component}-metrics")
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["ports"] == [{"name": "metrics", "port": port, "targetPort": "metrics"}]


def test_without_metrics_health_is_served_all_the_same(needs_helm: None) -> None:
    rendered = helm.render(
        "--set",
        "controller.metrics.enabled=false,kubeletPlugin.metrics.enabled=false,mpsSupervisor.metrics.enabled=false",
    )
    for component in PODS:
        found = container(rendered, component)
        assert found["args"] == ["--metrics-path="]
        assert "METRICS_PATH" not in env_of(found)
        assert "livenessProbe" in found
    assert not rendered.all("Service")


def test_the_controller_has_no_privileges(default: Rendered) -> None:
    pod = default.pod("controller")
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(default, "controller")["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod.get("volumes")


def test_a_disruption_budget_needs_a_second_controller(default: Rendered) -> None:
    budget = default.one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == default.workload("controller")["spec"]["selector"]
    assert not helm.render("--set", "controller.replicas=1").all("PodDisruptionBudget")


def test_selectors_find_their_own_pods_only(default: Rendered) -> None:
    labels = {component: default.workload(component)["spec"]["template"]["metadata"]["labels"] for component in PODS}

    def found_by(selector: dict[str, str]) -> list[str]:
        return [component for component in PODS if selector.items() <= labels[component].items()]

    for component in PODS:
        assert found_by(default.workload(component)["spec"]["selector"]["matchLabels"]) == [component]
    policies = [found_by(policy["spec"]["podSelector"]["matchLabels"]) for policy in default.all("NetworkPolicy")]
    assert sorted(policies) == [[component] for component in sorted(PODS)]


def test_real_gpus_are_seen_through_the_mounted_roots(needs_helm: None) -> None:
    rendered = helm.render("--set", "nvidiaDriverRoot=/run/nvidia/driver,nvidiaCDIHookPath=/opt/hook")
    variables = env_of(container(rendered, "kubelet-plugin"))
    assert volumes(rendered)["driver-root"] == (variables["NVIDIA_DRIVER_ROOT"], variables["CONTAINER_DRIVER_ROOT"])
    assert volumes(rendered)["host-root"] == ("/", variables["HOST_ROOT"])
    assert variables["NVIDIA_DRIVER_ROOT"] == "/run/nvidia/driver"
    assert variables["NVIDIA_CDI_HOOK_PATH"] == "/opt/hook"
    roots = [
        m for m in container(rendered, "kubelet-plugin")["volumeMounts"] if m["name"] in ("driver-root", "host-root")
    ]
    assert {(mount["readOnly"], mount["mountPropagation"]) for mount in roots} == {(True, "HostToContainer")}
    assert container(rendered, "kubelet-plugin")["securityContext"] == {"privileged": True}


def test_folders_of_sockets_have_the_same_path_inside_and_outside(needs_helm: None) -> None:
    rendered = helm.render(
        "--set", "kubeletPlugin.kubeletPluginsDirectoryPath=/k/plugins,config.cdi.root=/etc/cdi",
        "--set", "kubeletPlugin.kubeletRegistrarDirectoryPath=/k/registry,config.driverName=gpu.example.com",
    )  # fmt: skip
    found = volumes(rendered)
    assert found["plugins-registry"] == ("/k/registry", "/k/registry")
    assert found["plugin"] == ("/k/plugins/gpu.example.com", "/k/plugins/gpu.example.com")
    assert found["cdi"] == ("/etc/cdi", "/etc/cdi")
    variables = env_of(container(rendered, "kubelet-plugin"))
    assert variables["KUBELET_PLUGINS_DIRECTORY_PATH"] == "/k/plugins"
    assert variables["KUBELET_REGISTRAR_DIRECTORY_PATH"] == "/k/registry"


def test_the_plugin_goes_to_nodes_with_a_gpu(default: Rendered) -> None:
    pod = default.pod("kubelet-plugin")
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {expression["key"] for term in terms for expression in term["matchExpressions"]} == {
        "feature.node.kubernetes.io/pci-10de.present",
        "feature.node.kubernetes.io/pci-0302_10de.present",
        "feature.node.kubernetes.io/pci-0300_10de.present",
        "feature.node.kubernetes.io/cpu-model.vendor_id",
        "nvidia.com/gpu.present",
    }
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


# -- simulated ----------------------------------------------------------------------------------------------------------


def test_simulated_gpus_are_made_before_the_plugin_starts(simulated: Rendered) -> None:
    pod = simulated.pod("kubelet-plugin")
    (init,) = pod["initContainers"]
    assert init["name"] == "simulate"
    assert init["command"] == [
        "gpu-dra", "machine", "create", "--machine", "$(MACHINE)", "--seed", "$(NODE_NAME)", "--folder", FOLDER
    ]  # fmt: skip
    assert env_of(init) == {"NODE_NAME": "<spec.nodeName>", "MACHINE": "a100-sxm4-40gb"}
    assert init["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["MKNOD"]}
    assert init["volumeMounts"] == [{"name": "simulated", "mountPath": FOLDER}]
    assert "affinity" not in pod


def test_simulated_gpus_are_all_that_the_plugin_sees(simulated: Rendered) -> None:
    variables = env_of(container(simulated, "kubelet-plugin"))
    assert variables["SIMULATED_STATE"] == f"{FOLDER}/gpus.json"
    roots = ("NVIDIA_DRIVER_ROOT", "CONTAINER_DRIVER_ROOT", "HOST_ROOT")
    assert {variables[name] for name in roots} == {f"{FOLDER}/host"}
    assert set(volumes(simulated)) == {"plugins-registry", "plugin", "cdi", "simulated"}
    assert volumes(simulated)["simulated"] == (FOLDER, FOLDER)
    assert "privileged" not in container(simulated, "kubelet-plugin")["securityContext"]


def test_the_default_machine_exists() -> None:
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    assert values["simulated"]["machine"] in recorded_machines()


def test_nodes_can_have_machines_of_their_own(needs_helm: None) -> None:
    rendered = helm.render("--set", "simulated.enabled=true", "--set-json", 'simulated.machines={"n.1":"h200"}')
    (init,) = rendered.pod("kubelet-plugin")["initContainers"]
    assert "n.1) MACHINE=h200 ;;" in init["args"][0]
    assert f'--machine "$MACHINE" --seed "$NODE_NAME" --folder {FOLDER}' in init["args"][0]


def test_a_chosen_security_context_is_kept_with_simulated_gpus(needs_helm: None) -> None:
    chosen = "kubeletPlugin.containers.gpus.securityContext"
    rendered = helm.render("--set", "simulated.enabled=true", "--set", f"{chosen}.runAsUser=0")
    assert container(rendered, "kubelet-plugin")["securityContext"] == {"privileged": True, "runAsUser": 0}


# -- classes, configuration, names --------------------------------------------------------------------------------------


def classes(rendered: Rendered) -> list[dict[str, Any]]:
    return [{**obj, "metadata": {"name": obj["metadata"]["name"]}} for obj in rendered.all("DeviceClass")]


def test_device_classes_are_those_of_the_driver(default: Rendered) -> None:
    assert classes(default) == list(device_classes())
    other = helm.render("--set", "config.driverName=gpu.example.com")
    assert classes(other) == list(device_classes("gpu.example.com"))


def test_the_extended_resource_can_be_switched_off(needs_helm: None) -> None:
    rendered = helm.render("--set", "deviceClasses.extendedResourceName=")
    assert all("extendedResourceName" not in obj["spec"] for obj in rendered.all("DeviceClass"))
    assert not helm.render("--set", "deviceClasses.create=false").all("DeviceClass")


def test_the_crd_is_upgraded_with_the_chart_and_stays_when_it_goes(default: Rendered) -> None:
    crd = default.one("CustomResourceDefinition")
    shipped = yaml.safe_load((helm.ROOT / "deploy/crds/nodeinventories.yaml").read_text())
    assert crd["spec"] == shipped["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not helm.render("--set", "crds.create=false").all("CustomResourceDefinition")


def test_a_configuration_reaches_both_processes_and_makes_new_pods(needs_helm: None) -> None:
    config = {"observability": {"logFormat": "json"}, "hardware": {"rescanInterval": "30s"}}
    rendered = helm.render("--set-json", f"config={json.dumps(config)}")
    (text,) = rendered.one("ConfigMap")["data"].values()
    decoded = decode(yaml.safe_load(text)).spec
    assert (decoded.observability.log_format, decoded.hardware.rescan_interval) == ("json", 30.0)
    for component in PODS:
        assert env_of(container(rendered, component))["CONFIG_FILE"] == "/etc/gpu-dra/driver.yaml"
        mounts = container(rendered, component)["volumeMounts"]
        assert {"name": "config", "mountPath": "/etc/gpu-dra", "readOnly": True} in mounts
    other = helm.render("--set", "config.observability.logFormat=text")
    sums = {
        result.workload(component)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for result in (rendered, other)
        for component in PODS
    }
    assert len(sums) == 2


def test_rules_about_mig_reach_both_processes(needs_helm: None, tmp_path: Path) -> None:
    """Also with an unquoted off, which Helm reads as false, and beside other settings."""
    values = tmp_path / "values.yaml"
    values.write_text("""
config: {observability: {logFormat: json}}
mig:
  rules:
  - {selector: {nodes: [quiet-*]}, mode: off}
  - {selector: {products: ["NVIDIA A100*"]}, mode: static}
""")
    rendered = helm.render("--values", str(values))
    (text,) = rendered.one("ConfigMap")["data"].values()
    spec = decode(yaml.safe_load(text)).spec
    assert [rule.mode for rule in spec.mig.rules] == ["off", "static"]
    assert spec.observability.log_format == "json"
    alone = helm.render("--set", "mig.rules[0].mode=dynamic")
    sums = set()
    for each in (rendered, alone):
        for component in PODS:
            assert env_of(container(each, component))["CONFIG_FILE"] == "/etc/gpu-dra/driver.yaml"
            sums.add(each.workload(component)["spec"]["template"]["metadata"]["annotations"]["checksum/config"])
    assert len(sums) == 2


def test_rules_about_sharing_reach_both_processes(needs_helm: None) -> None:
    """The values of the example, which are valid as a part of DriverConfiguration."""
    values = helm.ROOT / "deploy/examples/values/replicas.yaml"
    rendered = helm.render("--values", str(values))
    (text,) = rendered.one("ConfigMap")["data"].values()
    spec = decode(yaml.safe_load(text)).spec
    assert [(rule.strategy, rule.replicas) for rule in spec.sharing.rules] == [("MPS", 8), ("TimeSlicing", 4)]
    for component in PODS:
        assert env_of(container(rendered, component))["CONFIG_FILE"] == "/etc/gpu-dra/driver.yaml"


@pytest.mark.parametrize(("given", "taken"), [("4", "4"), ("memory", "memory"), ("", None)])
def test_nvidias_switch_for_shares_reaches_both_processes(needs_helm: None, given: str, taken: str | None) -> None:
    rendered = helm.render("--set", f"consumableShares={given}", "--set", "sharing.rules[0].replicas=2")
    (text,) = rendered.one("ConfigMap")["data"].values()
    spec = decode(yaml.safe_load(text)).spec
    assert (spec.sharing.consumable_shares or None) == taken
    assert [rule.replicas for rule in spec.sharing.rules] == [2]


def test_gates_and_verbosity_of_nvidias_chart_are_understood(needs_helm: None) -> None:
    gates = "featureGates.ContextualLogging=true,featureGates.ComputeDomainCliques=false"
    rendered = helm.render("--set", gates, "--set", "logVerbosity=6")
    for component in PODS:
        variables = env_of(container(rendered, component))
        if component != "mps-supervisor":
            assert variables["FEATURE_GATES"] == "ComputeDomainCliques=false,ContextualLogging=true"
        assert variables["LOG_LEVEL"] == "debug"
    assert env_of(container(helm.render("--set-string", "logVerbosity=4"), "kubelet-plugin"))["LOG_LEVEL"] == "info"


def test_images_accounts_and_pull_secrets(needs_helm: None) -> None:
    rendered = helm.render(
        "--set", "image.repository=registry.example.com/gpu-dra,image.tag=v9,image.pullPolicy=Always",
        "--set", "imagePullSecrets[0].name=secret,serviceAccount.annotations.a=b",
    )  # fmt: skip
    for component in PODS:
        assert container(rendered, component)["image"] == "registry.example.com/gpu-dra:v9"
        assert container(rendered, component)["imagePullPolicy"] == "Always"
        assert rendered.pod(component)["imagePullSecrets"] == [{"name": "secret"}]
    assert [obj["metadata"]["annotations"] for obj in rendered.all("ServiceAccount")] == [{"a": "b"}] * len(PODS)
    assert not helm.render("--set", "serviceAccount.create=false").all("ServiceAccount")


def test_two_releases_share_nothing_but_the_api_they_serve(needs_helm: None) -> None:
    def names(rendered: Rendered) -> set[tuple[str, str, str]]:
        return {
            (obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
            for obj in rendered.objects
            if obj["kind"] not in ("CustomResourceDefinition", "DeviceClass")
        }

    first, second = helm.render(), helm.render(release="second", namespace="elsewhere")
    assert names(first).isdisjoint(names(second))
    assert second.workload("controller")["metadata"]["name"] == "second-gpu-dra-controller"
    moved = helm.render("--set", "namespaceOverride=here,fullnameOverride=short")
    assert {obj["metadata"].get("namespace", "here") for obj in moved.objects} == {"here"}
    assert moved.workload("kubelet-plugin")["metadata"]["name"] == "short-kubelet-plugin"


def test_the_network_policy_lets_in_scrapers_and_out_to_the_api_server(default: Rendered) -> None:
    for component in PODS:
        spec = default.one("NetworkPolicy", component)["spec"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["ingress"] == [{"ports": [{"port": "metrics", "protocol": "TCP"}]}]
        ports = {(port["port"], port["protocol"]) for rule in spec["egress"] for port in rule["ports"]}
        api_server = {(443, "TCP"), (6443, "TCP"), (53, "UDP"), (53, "TCP")}
        assert ports == (set() if component == "mps-supervisor" else api_server)
    assert len(helm.render("--set", "kubeletPlugin.networkPolicy.enabled=false").all("NetworkPolicy")) == len(PODS) - 1
    assert not helm.render("--set", "networkPolicy.enabled=false").all("NetworkPolicy")


def test_service_monitors_select_the_services(needs_helm: None) -> None:
    rendered = helm.render("--set", "serviceMonitor.enabled=true,serviceMonitor.labels.team=gpu")
    monitors = rendered.all("ServiceMonitor")
    assert len(monitors) == len(PODS)
    for monitor in monitors:
        selector = monitor["spec"]["selector"]["matchLabels"]
        matching = [s for s in rendered.all("Service") if selector.items() <= s["metadata"]["labels"].items()]
        assert len(matching) == 1
        assert monitor["metadata"]["labels"]["team"] == "gpu"
