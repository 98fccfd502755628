"""Named layouts through the plugin as a real process on simulated GPUs: published, used by pods, changed, refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dra_driver.kube.interface import PODS, Obj
from dra_driver.simulation.hardware import StateFile, faults
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.node_lab import NodeLab, PluginProcess

pytestmark = pytest.mark.process

LAYOUTS = {
    "version": "v1",
    "mig-configs": {
        "halves": [{"devices": [0], "mig-enabled": True, "mig-devices": {"3g.40gb": 2}}],
        "mixed": [{"devices": [0], "mig-enabled": True, "mig-devices": {"3g.40gb": 1, "1g.10gb": 2}}],
        "too-much": [{"devices": [0], "mig-enabled": True, "mig-devices": {"4g.40gb": 2}}],
    },
}


@pytest.fixture
def lab(root: Path) -> Iterator[NodeLab]:
    lab = NodeLab(root, machine="h100-sxm5-80gb")
    yield lab
    lab.close()


def start(lab: NodeLab, layout: str, pod_uid: str) -> PluginProcess:
    file = lab.root / f"{layout}.yaml"
    rules = [{"selector": {"minors": [0]}, "mode": "static", "layout": layout}]
    document = {
        "apiVersion": "gpu-dra.dev/v1alpha1",
        "kind": "DriverConfiguration",
        "spec": {"mig": {"rules": rules, "layouts": LAYOUTS}},
    }
    file.write_text(yaml.safe_dump(document))
    return lab.plugin(f"--config={file}", pod_uid=pod_uid)


def plugin(lab: NodeLab, layout: str, pod_uid: str) -> PluginProcess:
    """Until it has published its state."""
    started = start(lab, layout, pod_uid)
    lab.wait_ready()
    return started


def instances(lab: NodeLab) -> list[tuple[str, int]]:
    """Profile and start of what the inventory has of GPU 0."""
    machine: Mapping[str, Any] = lab.status().get("machine") or {}
    gpu: Mapping[str, Any] = next((gpu for gpu in machine.get("gpus") or () if gpu["minor"] == 0), {})
    return [(each["profileName"], each["start"]) for each in gpu.get("migInstances") or ()]


def pod_with(lab: NodeLab, name: str, device: str) -> None:
    lab.cluster.claim(name, device=device)
    lab.cluster.pod(name, name)
    eventually(lambda: lab.cluster.phase(name) == "Running", timeout=20)


def delete_pod(lab: NodeLab, name: str) -> None:
    lab.api.delete(PODS, name, "default")
    eventually(lambda: lab.cluster.gone(name), timeout=20)


def applied(lab: NodeLab) -> Obj:
    return lab.condition("MigLayoutApplied")


def test_a_layout_from_the_start_to_another_one_that_waits_for_a_pod(lab: NodeLab) -> None:
    first = plugin(lab, "halves", "pod-1")
    # The first state that is published has the layout: no scheduler ever saw a whole GPU 0.
    assert instances(lab) == [("3g.40gb", 0), ("3g.40gb", 4)]
    assert (applied(lab)["status"], applied(lab)["reason"]) == ("True", "Applied")
    eventually(
        lambda: [event["message"] for event in lab.events("MigLayoutApplied")] == ["gpu-0: layout halves: applied"]
    )
    pod_with(lab, "train", "gpu-0-mig-3g40gb-9-4")
    assert first.terminate() == 0

    plugin(lab, "mixed", "pod-2")
    eventually(lambda: applied(lab)["reason"] == "WaitingForClaims", timeout=20)
    assert applied(lab)["message"] == "gpu-0: layout mixed: waits for claim default/train on it to end"
    assert instances(lab) == [("3g.40gb", 0), ("3g.40gb", 4)]
    delete_pod(lab, "train")
    eventually(lambda: applied(lab)["status"] == "True", timeout=20)
    eventually(lambda: len(instances(lab)) == 3, timeout=20)
    assert sorted(profile for profile, _start in instances(lab)) == ["1g.10gb", "1g.10gb", "3g.40gb"]
    assert ("3g.40gb", 4) in instances(lab) or ("3g.40gb", 0) in instances(lab)


def test_a_killed_plugin_leaves_what_the_next_one_completes(lab: NodeLab) -> None:
    faults.inject_latency(lab.state, "nvmlDeviceCreateGpuInstanceWithPlacement", 0.5)
    first = start(lab, "mixed", "pod-1")
    eventually(lambda: StateFile(lab.state).read().gpus[0].instances, timeout=20)
    first.kill()
    faults.clear_faults(lab.state)
    assert len(StateFile(lab.state).read().gpus[0].instances) < 3
    plugin(lab, "mixed", "pod-2")
    assert sorted(profile for profile, _start in instances(lab)) == ["1g.10gb", "1g.10gb", "3g.40gb"]
    state = StateFile(lab.state).read().gpus[0]
    assert len(list(state.mig_devices())) == 3


def test_a_layout_that_does_not_fit_is_refused_and_the_gpu_stays_whole(lab: NodeLab) -> None:
    plugin(lab, "too-much", "pod-1")
    eventually(lambda: applied(lab), timeout=20)
    assert (applied(lab)["status"], applied(lab)["reason"]) == ("False", "DoesNotFit")
    assert applied(lab)["message"] == (
        "gpu-0: layout too-much: 2x 4g.40gb do not fit on NVIDIA H100 80GB HBM3: "
        "2 of 4g.40gb are wanted, and a GPU holds at most 1"
    )
    assert instances(lab) == []
    eventually(lambda: lab.events("MigLayoutDoesNotFit"))
    pod_with(lab, "whole", "gpu-0")
