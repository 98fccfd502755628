"""The runtime resolves CDI names as containerd does: whole files refused, priorities, conflicts, order of edits."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from dra_driver.simulation.runtime.cdi import CdiFileError, read_spec, scan
from dra_driver.simulation.runtime.runtime import (
    ContainerCreateError,
    ContainerRequest,
    ContainerRuntime,
    ContainerView,
    DeviceNode,
    DeviceRule,
)

KIND = "k8s.gpu.nvidia.com/claim"


def spec(*devices: dict[str, Any], version: str = "0.5.0", **fields: Any) -> dict[str, Any]:
    return {"cdiVersion": version, "kind": KIND, "devices": list(devices), **fields}


def device(name: str, **edits: Any) -> dict[str, Any]:
    return {"name": name, "containerEdits": edits or {"env": ["X=1"]}}


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def request(*names: str, env: dict[str, str] | None = None) -> ContainerRequest:
    return ContainerRequest("ns", "pod", "pod-uid", "main", env or {}, tuple(f"{KIND}={name}" for name in names))


def create(folder: Path, *names: str, env: dict[str, str] | None = None) -> ContainerView:
    return ContainerRuntime([folder]).create(request(*names, env=env))


def test_edits_apply_in_order_and_spec_edits_once(tmp_path: Path) -> None:
    node = {"path": "/dev/nvidia0", "hostPath": "/host/nvidia0", "type": "c", "major": 195, "minor": 0}
    control = {"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255, "permissions": "rw"}
    write(
        tmp_path,
        "a.json",
        spec(
            device("gpu-0", deviceNodes=[node], env=["A=device0"]),
            device("gpu-1", env=["A=device1", "B=2"]),
            containerEdits={"deviceNodes": [control], "env": ["A=spec", "NVIDIA_VISIBLE_DEVICES=void"]},
        ),
    )

    view = create(tmp_path, "gpu-0", "gpu-1", env={"A": "container", "KEEP": "1"})

    assert view.env == {"A": "device1", "KEEP": "1", "NVIDIA_VISIBLE_DEVICES": "void", "B": "2"}
    assert view.device_nodes == (
        DeviceNode("/dev/nvidiactl", "/dev/nvidiactl", "c", 195, 255, permissions="rw"),
        DeviceNode("/dev/nvidia0", "/host/nvidia0", "c", 195, 0),
    )
    assert view.device_rules == (DeviceRule("c", 195, 255, "rw"), DeviceRule("c", 195, 0, "rwm"))
    assert json.loads(json.dumps(view.to_dict()))["device_nodes"][1]["path"] == "/dev/nvidia0"


def test_yaml_mounts_hooks_and_groups(tmp_path: Path) -> None:
    hook = tmp_path / "nvidia-cdi-hook"
    hook.touch()
    (tmp_path / "claim.yaml").write_text(
        f"""
cdiVersion: 0.7.0
kind: {KIND}
devices:
  - name: gpu-0
    containerEdits:
      mounts:
        - {{hostPath: {tmp_path}, containerPath: /usr/lib/deep/er, options: [ro, rbind]}}
        - {{hostPath: {tmp_path}, containerPath: /usr}}
      hooks: [{{hookName: createContainer, path: {hook}, args: [nvidia-cdi-hook, update-ldcache]}}]
      additionalGids: [44, 44, 0]
"""
    )
    view = create(tmp_path, "gpu-0")
    assert [mount.container_path for mount in view.mounts] == ["/usr", "/usr/lib/deep/er"]
    assert view.mounts[1].options == ("ro", "rbind")
    assert view.hooks[0].args == ("nvidia-cdi-hook", "update-ldcache")
    assert view.additional_gids == (44,)


def test_numbers_come_from_the_host_node_when_the_spec_has_none(tmp_path: Path) -> None:
    write(tmp_path, "a.json", spec(device("null", deviceNodes=[{"path": "/dev/x", "hostPath": "/dev/null"}])))
    (node,) = create(tmp_path, "null").device_nodes
    found = os.stat("/dev/null")
    assert (node.type, node.major, node.minor) == ("c", os.major(found.st_rdev), os.minor(found.st_rdev))
    assert node.file_mode == stat.S_IMODE(found.st_mode)


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ({"deviceNodes": [{"path": "/dev/absent-gpu"}]}, "failed to stat CDI host device '/dev/absent-gpu'"),
        ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/"}]}, "not a device node"),
        ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null", "type": "b"}]}, "is of type 'c', not 'b'"),
        ({"mounts": [{"hostPath": "/absent/lib.so", "containerPath": "/lib.so"}]}, "error mounting '/absent/lib.so'"),
        ({"hooks": [{"hookName": "createContainer", "path": "/absent/hook"}]}, "fork/exec /absent/hook"),
    ],
)
def test_what_runc_would_refuse_is_refused(tmp_path: Path, edits: dict[str, Any], text: str) -> None:
    write(tmp_path, "a.json", spec(device("gpu-0", **edits)))
    runtime = ContainerRuntime([tmp_path])
    with pytest.raises(ContainerCreateError, match=text):
        runtime.create(request("gpu-0"))
    assert runtime.running("pod-uid") == ()


def test_an_unknown_device_is_unresolvable_and_names_broken_files(tmp_path: Path) -> None:
    write(tmp_path, "broken.json", spec(device("gpu-0"), surprise=1))
    with pytest.raises(
        ContainerCreateError, match=r"unresolvable CDI devices .*=gpu-0; broken.json: .*unknown field 'surprise'"
    ):
        create(tmp_path, "gpu-0")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (spec(device("a"), version="9.9.9"), "invalid cdiVersion '9.9.9'"),
        (spec(device("a"), version="new"), "invalid cdiVersion 'new'"),
        (spec(), "no devices"),
        (spec({"name": "a", "containerEdits": {}}), "empty device edits"),
        (spec({"name": "a", "containerEdits": {"env": []}}), "empty device edits"),
        (spec(device("a"), device("a")), "duplicate device 'a'"),
        (spec(device("-a")), "invalid device name '-a'"),
        (spec(device("a", env=["NOVALUE"])), "is not NAME=value"),
        (spec(device("a", deviceNodes=[{"path": "/d", "type": "z"}])), "invalid type 'z'"),
        (spec(device("a", deviceNodes=[{"path": "/d", "permissions": "q"}])), "invalid permissions 'q'"),
        (spec(device("a", deviceNodes=[{"path": "/d", "mayor": 1}])), "unknown field 'mayor'"),
        (spec(device("a", deviceNodes=[{"path": "/d", "major": "195"}])), "major: '195' is not a number"),
        (spec(device("a", hooks=[{"hookName": "atStart", "path": "/h"}])), "invalid hook name 'atStart'"),
        (spec(device("a", mounts=[{"hostPath": "/h"}])), "containerPath is missing"),
        (spec(device("a"), version="0.4.0", containerEdits={"additionalGids": [1]}), "is below 0.7.0"),
        (spec(device("0a"), version="0.4.0"), "is below 0.5.0"),
        (spec(device("a"), version="0.5.0", annotations={"k": "v"}), "is below 0.6.0"),
        ({**spec(device("a")), "kind": "novendor"}, "invalid kind 'novendor'"),
        ([], "expected an object"),
    ],
)
def test_a_file_is_refused_as_a_whole(tmp_path: Path, content: Any, text: str) -> None:
    path = write(tmp_path, "a.json", content)
    with pytest.raises(CdiFileError, match=text):
        read_spec(path)
    assert not scan([tmp_path]).devices


def test_versions_newer_than_the_runtime_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.json", spec(device("a"), version="1.1.0"))
    assert scan([tmp_path]).devices
    assert not scan([tmp_path], "0.8.0").devices


def test_the_later_folder_wins_and_equal_priority_conflicts(tmp_path: Path) -> None:
    low, high = tmp_path / "etc", tmp_path / "run"
    write(low, "a.json", spec(device("gpu-0", env=["FROM=low"]), device("gpu-1", env=["FROM=low"])))
    write(high, "a.json", spec(device("gpu-0", env=["FROM=high"])))
    runtime = ContainerRuntime([low, high, tmp_path / "absent"])
    assert runtime.create(request("gpu-0", "gpu-1")).env == {"FROM": "low"}
    assert runtime.create(request("gpu-1", "gpu-0")).env == {"FROM": "high"}

    write(high, "b.json", spec(device("gpu-0", env=["FROM=other"])))
    with pytest.raises(ContainerCreateError, match="conflicting device"):
        runtime.create(request("gpu-0"))


def test_only_json_and_yaml_directly_inside_count(tmp_path: Path) -> None:
    write(tmp_path, ".a.json.x.tmp", spec(device("a")))
    write(tmp_path / "sub", "a.json", spec(device("b")))
    assert not scan([tmp_path]).devices
    assert not scan([tmp_path]).errors


def test_removed_containers_are_gone(tmp_path: Path) -> None:
    write(tmp_path, "a.json", spec(device("a")))
    runtime = ContainerRuntime([tmp_path])
    view = runtime.create(request("a"))
    assert runtime.running("pod-uid") == (view,)
    assert runtime.remove("pod-uid") == 1
    assert runtime.running("pod-uid") == ()
