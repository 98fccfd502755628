"""What is refused before anything is installed, and that it is said clearly; what of NVIDIA's values is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from api import driver_config
from api.feature_gates import FEATURE_GATES
from api.strict import DecodeError
from tests.deploy import helm


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("kubeletPlugins.nodeSelector.a=b", "additional properties 'kubeletPlugins' not allowed"),
        ("controller.replica=3", "at '/controller': additional properties 'replica' not allowed"),
        ("controller.replicas=many", "at '/controller/replicas': got string, want integer"),
        ("config.cdi.rooot=/etc/cdi", "at '/config/cdi': additional properties 'rooot' not allowed"),
        ("config.observability.logLevel=loud", "at '/config/observability/logLevel'"),
        ("featureGates.DynamicMig=true", "at '/featureGates': additional properties 'DynamicMig' not allowed"),
        ("kubeletPlugin.metrics.gpuHttpEndpoint=127.0.0.1:8080", "at '/kubeletPlugin/metrics/gpuHttpEndpoint'"),
        ("mig.rules[0].mode=dynamc", "at '/mig/rules/0/mode'"),
        ("mig.rules[0].selector.node=a", "at '/mig/rules/0/selector': additional properties 'node' not allowed"),
        ("sharing.rules[0].replica=2", "at '/sharing/rules/0'"),
        ("sharing.rules[0].replicas=1", "at '/sharing/rules/0/replicas'"),
        ("mpsSupervisor.metrics.httpEndpoint=127.0.0.1:80", "at '/mpsSupervisor/metrics/httpEndpoint'"),
        ("mpsSupervisor.updateStrategy.rollingUpdate.maxSurge=1", "at '/mpsSupervisor/updateStrategy/rollingUpdate'"),
        ("resourceApiVersion=resource.k8s.io/v1beta1", "at '/resourceApiVersion'"),
        ("simulated.machine=a b", "at '/simulated/machine'"),
    ],
)
def test_the_schema_names_what_it_does_not_know(needs_helm: None, setting: str, message: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        helm.template("--set", setting)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("resources.computeDomains.enabled=true", "this driver has no compute domains"),
        ("resources.gpus.enabled=false", "leaves nothing to install"),
        ("webhook.enabled=true", "there is no admission webhook"),
        (
            "config.featureGates.DeviceMetadata=true",
            "config.featureGates.DeviceMetadata=true: this version does not have",
        ),
        ("controller.leaderElection.enabled=false", "would write the same slices against each other"),
        ("config.hardware.driverRoot=/run/nvidia/driver", "from nvidiaDriverRoot: set that instead"),
        ("config.controller.leaderElection.enabled=false", "from controller.leaderElection.enabled: set that instead"),
        ("config.observability.metricsPath=/m", "set by the chart itself"),
        ("config.mig.rules[0].mode=off", "set by the chart itself, from mig: set that instead"),
        ("config.sharing.rules[0].replicas=2", "set by the chart itself, from sharing: set that instead"),
        ("logVerbosity=6,config.observability.logLevel=info", "both say what is logged"),
        (
            "featureGates.DynamicMIG=false,config.featureGates.DynamicMIG=true",
            "featureGates.DynamicMIG is false and config.featureGates.DynamicMIG is not: set one of them",
        ),
        ("namespaceOverride=default", "should have a namespace of its own"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(needs_helm: None, setting: str, message: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        helm.template("--set", setting)
    assert message in str(refused.value)


def settable(*gates: str) -> str:
    return ",".join(f"featureGates.{gate}=true" for gate in gates)


def test_exactly_the_gates_that_the_programs_refuse_are_refused(needs_helm: None) -> None:
    def refused(gate: str) -> bool:
        try:
            driver_config.load(None, {"FEATURE_GATES": f"{gate}=true"}, {})
        except DecodeError:
            return True
        return False

    wrong = [gate for gate in FEATURE_GATES if refused(gate)]
    with pytest.raises(helm.HelmError) as said:
        helm.template("--set", settable(*FEATURE_GATES))
    assert wrong
    assert [gate for gate in FEATURE_GATES if f"featureGates.{gate}=true" in str(said.value)] == wrong
    assert helm.render("--set", settable(*(FEATURE_GATES.keys() - set(wrong)))).objects
    off = ",".join(f"featureGates.{gate}=false,config.featureGates.{gate}=false" for gate in wrong)
    assert helm.render("--set", off).objects


def test_the_default_namespace_can_be_allowed(needs_helm: None) -> None:
    assert helm.render("--set", "allowDefaultNamespace=true", namespace="default").objects


# The values of NVIDIA's chart 0.5 with their defaults, less what this driver refuses when it is asked for.
NVIDIAS_VALUES = """
nvidiaDriverRoot: /run/nvidia/driver
nvidiaCDIHookPath: ""
altProcDevices: ""
nameOverride: ""
fullnameOverride: ""
namespaceOverride: ""
selectorLabelsOverride: {}
gpuResourcesEnabledOverride: true
consumableShares: ""
allowDefaultNamespace: false
resourceApiVersion: ""
imagePullSecrets: []
serviceAccount: {create: true, annotations: {}, name: ""}
resources:
  gpus: {enabled: true}
  computeDomains:
    enabled: false
    imex: {mode: driverManaged, isolation: domain, hostSocketPath: /etc/nvidia-imex/imex_ctrl.sock}
featureGates: {IMEXDaemonsWithDNSNames: true}
logVerbosity: "4"
webhook: {enabled: false, replicas: 1, servicePort: 443, tls: {mode: cert-manager}}
controller:
  replicas: 1
  leaderElection: {enabled: false, leaseDuration: 15s, renewDeadline: 10s, retryPeriod: 2s}
  metrics: {enabled: true, httpEndpoint: ":8080", metricsPath: /metrics, profilePath: ""}
  priorityClassName: system-node-critical
  podAnnotations: {}
  podSecurityContext: {}
  nodeSelector: {}
  tolerations: [{key: CriticalAddonsOnly, operator: Exists}]
  containers: {computeDomain: {securityContext: {}, env: [], resources: {}}}
  affinity: {podAntiAffinity: {}}
  networkPolicy: {enabled: false}
kubeletPlugin:
  metrics: {enabled: true, gpuHttpEndpoint: ":8080", computeDomainHttpEndpoint: ":8081", metricsPath: /metrics}
  priorityClassName: system-node-critical
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 100%}}
  podAnnotations: {}
  podSecurityContext: {}
  nodeSelector: {}
  tolerations: []
  kubeletRegistrarDirectoryPath: /var/lib/kubelet/plugins_registry
  kubeletPluginsDirectoryPath: /var/lib/kubelet/plugins
  containers:
    init: {securityContext: {}, resources: {}}
    computeDomains: {env: [], securityContext: {privileged: true}, resources: {}, healthcheckPort: 51515}
    gpus: {env: [], securityContext: {privileged: true}, resources: {}, healthcheckPort: 51516}
  networkPolicy: {enabled: false}
"""


def test_a_values_file_of_nvidias_chart_installs(needs_helm: None, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(NVIDIAS_VALUES)
    rendered = helm.render("--values", str(values))
    assert rendered.workload("controller")["spec"]["replicas"] == 1
    # NVIDIA's values know no supervisor.
    assert [obj["metadata"]["name"] for obj in rendered.all("NetworkPolicy")] == ["gpu-dra-mps-supervisor"]
    variables = helm.env_of(rendered.pod("kubelet-plugin")["containers"][0])
    assert variables["NVIDIA_DRIVER_ROOT"] == "/run/nvidia/driver"


def test_every_default_value_is_in_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())

    def compare(properties: dict[str, object], present: dict[str, object], path: str) -> None:
        assert set(present) <= set(properties), path
        optional = {"global"} if not path else set()
        if path not in ("/config", "/featureGates", "/resources/computeDomains"):
            assert set(properties) - set(present) <= optional, path
        for key, value in present.items():
            inner = properties[key]
            if isinstance(value, dict) and isinstance(inner, dict) and inner.get("additionalProperties") is False:
                compare(inner.get("properties", {}), value, f"{path}/{key}")

    compare(schema["properties"], values, "")
