"""The MPS supervisor's pods: where they are, what they share with host and plugin, and that no update ends a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dra_driver.mps.group import groups_folder, socket_of
from tests.deploy import helm
from tests.deploy.helm import Rendered, env_of

COMPONENT = "mps-supervisor"


def container(rendered: Rendered) -> dict[str, Any]:
    (only,) = rendered.pod(COMPONENT)["containers"]
    found: dict[str, Any] = only
    return found


def mounts(rendered: Rendered) -> dict[str, dict[str, Any]]:
    return {mount["name"]: mount for mount in container(rendered)["volumeMounts"]}


def host_paths(rendered: Rendered) -> dict[str, str]:
    volumes = rendered.pod(COMPONENT)["volumes"]
    return {volume["name"]: volume["hostPath"]["path"] for volume in volumes if "hostPath" in volume}


def test_it_talks_to_no_api_server(default: Rendered) -> None:
    pod = default.pod(COMPONENT)
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "gpu-dra-mps-supervisor"


def test_a_node_has_one_at_a_time(default: Rendered) -> None:
    strategy = default.workload(COMPONENT)["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}


def test_daemons_outlive_the_container(default: Rendered) -> None:
    """With the host's process 1 they get into its namespaces, and into cgroups that are not the container's."""
    assert default.pod(COMPONENT)["hostPID"] is True


def test_groups_are_seen_by_host_and_plugin_at_one_path(needs_helm: None) -> None:
    rendered = helm.render(
        "--set", "kubeletPlugin.kubeletPluginsDirectoryPath=/k/plugins,config.driverName=gpu.example.com"
    )
    (plugin,) = [m for m in rendered.pod("kubelet-plugin")["containers"][0]["volumeMounts"] if m["name"] == "plugin"]
    mount = mounts(rendered)["mps"]
    assert env_of(container(rendered))["KUBELET_PLUGINS_DIRECTORY_PATH"] == "/k/plugins"
    assert mount["mountPath"] == host_paths(rendered)["mps"] == str(groups_folder(Path(plugin["mountPath"])))
    assert str(socket_of(Path(plugin["mountPath"]))).startswith(f"{mount['mountPath']}/")
    # A tmpfs goes out to the host, and its end comes in to the plugin.
    assert (mount["mountPropagation"], plugin["mountPropagation"]) == ("Bidirectional", "HostToContainer")
    assert container(rendered)["securityContext"] == {"privileged": True}  # what Bidirectional needs


@pytest.mark.parametrize("setting", ["simulated.enabled=true", "nvidiaDriverRoot=/run/nvidia/driver"])
def test_it_sees_the_hardware_as_the_plugin_does(needs_helm: None, setting: str) -> None:
    rendered = helm.render("--set", setting)
    plugin, own = env_of(rendered.pod("kubelet-plugin")["containers"][0]), env_of(container(rendered))
    roots = {"NVIDIA_DRIVER_ROOT", "CONTAINER_DRIVER_ROOT", "HOST_ROOT", "SIMULATED_STATE"} & plugin.keys()
    assert len(roots) >= 3
    assert {name: own[name] for name in roots} == {name: plugin[name] for name in roots}
    shared = {"driver-root", "host-root", "simulated"} & mounts(rendered).keys()
    assert shared
    plugin_mounts = {mount["name"]: mount for mount in rendered.pod("kubelet-plugin")["containers"][0]["volumeMounts"]}
    assert {name: mounts(rendered)[name] for name in shared} == {name: plugin_mounts[name] for name in shared}


def test_it_is_where_the_plugin_is_unless_fewer_nodes_are_chosen(needs_helm: None) -> None:
    chosen = ("--set", "kubeletPlugin.nodeSelector.pool=gpu,kubeletPlugin.tolerations[0].operator=Exists")
    same = helm.render(*chosen)
    for where in ("nodeSelector", "tolerations", "affinity"):
        assert same.pod(COMPONENT)[where] == same.pod("kubelet-plugin")[where]
    fewer = helm.render(*chosen, "--set", "mpsSupervisor.nodeSelector.mps=allowed")
    assert fewer.pod(COMPONENT)["nodeSelector"] == {"mps": "allowed"}
    assert fewer.pod("kubelet-plugin")["nodeSelector"] == {"pool": "gpu"}
    assert "affinity" not in helm.render("--set", "simulated.enabled=true").pod(COMPONENT)


@pytest.mark.parametrize(
    "setting", ["mpsSupervisor.enabled=false", "featureGates.MPSSupport=false", "config.featureGates.MPSSupport=false"]
)
def test_without_mps_there_is_nothing_of_it(needs_helm: None, setting: str) -> None:
    rendered = helm.render("--set", setting)
    assert not [obj["metadata"]["name"] for obj in rendered.objects if obj["metadata"]["name"].endswith(COMPONENT)]
    assert len(rendered.all("DaemonSet")) == 1
