"""Manifests: what is read, in which order it is applied, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.cli.manifests import ManifestError, in_order, load

POD = """
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: main, image: x}]}
"""


def write(folder: Path, text: str, name: str = "m.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_what_others_need_comes_first(tmp_path: Path) -> None:
    text = POD + "---\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n"
    manifests = in_order(load([write(tmp_path, text)]))
    assert [str(manifest) for manifest in manifests] == ["Namespace n", "Pod default/p"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path, POD.replace("name: p", f"name: {name}"), f"{name}.yaml")
    assert [manifest.source for manifest in load([tmp_path])] == ["a.yaml", "b.yaml"]


def test_of_a_folder_all_that_kubectl_takes_is_read(tmp_path: Path) -> None:
    write(tmp_path, POD, "a.yml")
    write(tmp_path, '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}', "b.json")
    write(tmp_path, "not a manifest: at all\n", "README.md")
    (tmp_path / "deeper.yaml").mkdir()
    assert [manifest.source for manifest in load([tmp_path])] == ["a.yml", "b.json"]


@pytest.mark.parametrize(
    ("exactly", "path"),
    [
        ("capacities: {requests: {memory: 4Gi}}", "exactly.capacities"),
        ("capacity: {memory: 4Gi}", "exactly.capacity.memory"),
        ("capacity: {request: {memory: 4Gi}}", "exactly.capacity.request"),
    ],
)
def test_a_field_that_kubectl_refuses_is_no_whole_gpu(tmp_path: Path, exactly: str, path: str) -> None:
    text = (
        "apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: c, labels: {a: b}}\nspec: {devices: "
        f"{{requests: [{{name: gpu, exactly: {{deviceClassName: gpu.nvidia.com, {exactly}}}}}]}}}}\n"
    )
    with pytest.raises(
        ManifestError, match=r"document 1: ResourceClaim c: unknown field spec\.devices\.requests\[0\]\."
    ) as said:
        load([write(tmp_path, text)])
    assert f"requests[0].{path};" in str(said.value)


def test_lists_are_opened(tmp_path: Path) -> None:
    text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n"
    (manifest,) = load([write(tmp_path, text)])
    assert manifest.name == "c"


def test_what_is_there_twice_word_for_word_is_taken_once(tmp_path: Path) -> None:
    """As kubectl apply does with a folder of which each file brings what it needs."""
    again = POD.replace("metadata: {name: p}", "metadata: {namespace: default, name: p}  # the same")
    write(tmp_path, POD, "a.yaml")
    write(tmp_path, again + "---" + POD.replace("name: p", "name: q"), "b.yaml")
    assert [(each.name, each.source) for each in load([tmp_path])] == [("p", "a.yaml"), ("q", "b.yaml")]


def test_of_two_namespaces_of_one_name_both_are_applied(tmp_path: Path) -> None:
    one, other = (f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: n, labels: {{of: {of}}}}}\n" for of in "ab")
    manifests = load([write(tmp_path, "---\n".join([one, other, other]))])
    assert [each.object["metadata"]["labels"]["of"] for each in manifests] == ["a", "b", "b"]


def test_two_different_ones_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, POD, "a.yaml")
    write(tmp_path, "---" + POD.replace("name: p", "name: q") + "---" + POD.replace("image: x", "image: y"), "b.yaml")
    expected = (
        rf"Pod default/p is there twice .* in {tmp_path}/a\.yaml, document 1 and in {tmp_path}/b\.yaml, document 2"
    )
    with pytest.raises(ManifestError, match=expected):
        load([tmp_path])


@pytest.mark.parametrize(
    ("kind", "api_version", "spec", "names"),
    [
        ("Deployment", "apps/v1", "replicas: 2", ["w-0", "w-1"]),
        ("Deployment", "apps/v1", "paused: false", ["w-0"]),
        ("Job", "batch/v1", "completions: 3", ["w-0", "w-1", "w-2"]),
        ("Job", "batch/v1", "parallelism: 2", ["w-0", "w-1"]),
    ],
)
def test_workloads_become_pods(tmp_path: Path, kind: str, api_version: str, spec: str, names: list[str]) -> None:
    text = f"""
apiVersion: {api_version}
kind: {kind}
metadata: {{name: w, namespace: team, annotations: {{gpu-dra.dev/expect: Running}}}}
spec:
  {spec}
  template:
    metadata: {{labels: {{app: w}}}}
    spec: {{restartPolicy: Never, containers: [{{name: main, image: x}}]}}
"""
    manifests = load([write(tmp_path, text)])
    assert [manifest.name for manifest in manifests] == names
    first = manifests[0].object
    assert first["metadata"]["namespace"] == "team"
    assert first["metadata"]["labels"] == {"app": "w"}
    assert first["metadata"]["annotations"] == {"gpu-dra.dev/expect": "Running"}
    assert first["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no objects in"),
        ("a: [", r"m\.yaml is not YAML: line 1, column 5: [^\n]*; correct it there$"),
        ("a: 2026-13-01", "is not YAML: month must be in"),
        ("{kind: Pod, metadata: {name: p}}", "document 1: Pod p has no apiVersion, add it"),
        ("{apiVersion: [v1], kind: Pod, metadata: {name: p}}", "Pod p has no apiVersion"),
        (
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: two, template: {spec: {}}}}",
            "Deployment wants 'two' pods; give a whole number",
        ),
        ("- 1", "document 1: not a Kubernetes object"),
        ("{apiVersion: v1, kind: Pod}", "Pod has no metadata.name"),
        (
            "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: d}}",
            "apps/v1 DaemonSet is not simulated, remove it; known are v1 Namespace",
        ),
        ("{apiVersion: resource.k8s.io/v1beta1, kind: DeviceClass, metadata: {name: d}}", "is not simulated"),
        ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {}}", "has no spec.template.spec"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        load([write(tmp_path, text)])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read .*nope\.yaml: No such file"):
        load([tmp_path / "nope.yaml"])
