"""What cannot be converted: a sentence with place and remedy, and the workload stays as it was."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import yaml

from tests.cli.convert.cases import converted
from tests.cli.convert.objects import documents, of_kind, pod

GPU = "nvidia.com/gpu: 1"
LIMITS = 'spec.containers[0].resources.limits["nvidia.com/'
ANNOTATION = 'metadata.annotations["nvidia.com/'
RESOURCES = "resources: {limits: {nvidia.com/gpu: 1}}"
MAIN = f"{{name: m, {RESOURCES}}}"
TEMPLATE = f"{{spec: {{containers: [{MAIN}]}}}}"
SHARED_ONCE = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {any: "{version: v1, sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 1}]}}}"}
"""


def thing(spec: str, version: str = "v1", kind: str = "Pod", name: str = "name: p") -> str:
    return f"{{apiVersion: {version}, kind: {kind}, metadata: {{{name}}}, spec: {spec}}}"


WRONG = [
    # amounts
    (
        pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 16Gi"),
        f'{LIMITS}gpumem"]: must be a whole number ... not "16Gi"; ...of MiB',
    ),
    (
        pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 1Gi"),
        'gpumem"]: must be a whole number ..., not "1Gi"; ...without a unit',
    ),
    (pod("nvidia.com/gpu: 1, nvidia.com/gpumem: -5"), 'gpumem"]: must be a whole number from 0 ..., not -5'),
    (
        pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 99999999999999999999"),
        'gpumem"]: must be ..., not a number of 67 bits',
    ),
    (pod("nvidia.com/gpu: 1, nvidia.com/gpumem: [3000]"), 'gpumem"]: must be ..., not a list'),
    (pod("nvidia.com/gpu: 1.5"), 'gpu"]: must be a whole number ..., not 1.5'),
    (pod("nvidia.com/gpu: true"), 'gpu"]: must be a whole number ..., not true'),
    (pod("nvidia.com/gpu: many"), 'gpu"]: must be a whole number ..., not "many"'),
    (pod("nvidia.com/gpu: 10k"), 'gpu"]: a claim has at most 32 devices, not 10000; ask for fewer'),
    (pod("nvidia.com/gpu: 20, nvidia.com/gpu.shared: 20"), "a claim has at most 32 devices, not 40"),
    (pod("nvidia.com/gpu: 1, nvidia.com/gpumem-percentage: 101"), 'percentage"]: must be a percentage ..., not 101'),
    (pod("nvidia.com/gpu: 1, nvidia.com/gpucores: 200"), 'gpucores"]: must be a percentage ..., not 200; write 100'),
    (
        pod("nvidia.com/gpu: 1, nvidia.com/gpumem: 1, nvidia.com/priority: 7"),
        'priority"]: must be 0 (high) or 1 (low), not 7',
    ),
    (
        pod("nvidia.com/gpu: 1, nvidia.com/gpumem-percentage: 50"),
        "percentage...50% of ... pass --gpu-memory SIZE ... --product",
    ),
    (pod("volcano.sh/vgpu-number: 1, volcano.sh/vgpu-memory-percentage: 50"), "50% of a GPU's memory ...--gpu-memory"),
    (pod("nvidia.com/mig-big: 1"), 'mig-big"]: "big" is no MIG profile; write one such as'),
    (pod("nvidia.com/A100.shared: 1"), 'A100.shared"]: no resource of this name is known here; remove it, or rename'),
    # annotations
    (
        pod(GPU, annotations="nvidia.com/use-gputype: [A100, V100]"),
        f'{ANNOTATION}use-gputype"]: must be text, not a list',
    ),
    (pod(GPU, annotations="nvidia.com/use-gputype: {a: b}"), "must be text, not an object; write its value in quotes"),
    (pod(GPU, annotations='nvidia.com/use-gputype: ","'), 'use-gputype"]: names 0, of 1 to 64; shorten or remove it'),
    (pod(GPU, annotations='nvidia.com/use-gputype: "Ä100"'), "is no part of a product name"),
    (pod(GPU, annotations="nvidia.com/use-gpuuuid: 0"), 'use-gpuuuid"]: "0" is no UUID of a GPU; write them as'),
    (pod(GPU, annotations="nvidia.com/vgpu-mode: sriov"), 'vgpu-mode"]: must be hami-core, mig or mps, not "sriov"'),
    (
        pod(GPU, annotations="nvidia.com/vgpu-mode: mig"),
        "HAMi chooses the MIG profile by nvidia.com/gpumem, which is not",
    ),
    # KAI
    (
        pod(annotations='gpu-fraction: "1.5"'),
        'metadata.annotations.gpu-fraction: must be a number between 0 and 1, not "1.5"',
    ),
    (pod(annotations="gpu-fraction: nan"), 'gpu-fraction: must be a number between 0 and 1, not "nan"'),
    (pod(annotations='gpu-fraction: "500m"'), 'gpu-fraction: must be a number between 0 and 1, not "500m"'),
    (pod(annotations='gpu-fraction: "1e-999999999"'), "gpu-fraction: must be a number between 0 and 1"),
    (pod(annotations='gpu-fraction: "0.5"'), "gpu-fraction: 50% of a GPU's memory has no meaning in DRA"),
    (
        pod(annotations="gpu-memory: 2000Mi"),
        'gpu-memory: must be a whole number above 0, not "2000Mi"; ... without a unit',
    ),
    (
        pod(annotations='gpu-memory: "2000", gpu-fraction-num-devices: "0"'),
        "num-devices: must be a whole number above 0",
    ),
    (
        pod(annotations='gpu-memory: "2000", gpu-fraction-num-devices: "99"'),
        "num-devices: a claim has at most 32 devices",
    ),
    (
        pod(annotations='gpu-memory: "2000", gpu-fraction: "0.5"'),
        'asks twice, by "gpu-fraction" and "gpu-memory"; keep one',
    ),
    (pod(annotations='gpu-memory: "2000", gpu-fraction-container-name: nobody'), 'has no container "nobody"; correct'),
    (pod("nvidia.com/gpumem: 0", annotations='gpu-memory: "2000"'), 'by "gpu-memory" and for GPUs by their number'),
    (pod(GPU, annotations='gpu-memory: "2000"'), 'asks for a fraction by "gpu-memory" and for GPUs by their number'),
    (
        pod(
            annotations="nvidia.com/container.main.gpu-memory.request: 8Gi, nvidia.com/container.main.gpu-memory.limit: 1Gi"
        ),
        'gpu-memory.limit"]: is less than the request',
    ),
    (pod(annotations="nvidia.com/container.main.gpu-memory.limit: much"), 'must be an amount of memory, not "much"'),
    (pod(annotations="nvidia.com/container.other.gpu-memory.limit: 1Gi"), 'the pod has no container "other"'),
    # shapes
    (
        thing("{containers: {main: {resources: {limits: {nvidia.com/gpu: 1}}}}}"),
        "containers: must be a list, not an object",
    ),
    (
        thing(f"{{containers: [7, {{{RESOURCES}}}]}}"),
        "containers[0]: must be a container, not 7; correct ... has no name",
    ),
    (thing(f"{{resourceClaims: {{}}, containers: [{MAIN}]}}"), "spec.resourceClaims: must be a list, not an object"),
    (
        thing("{containers: [{name: m, resources: {claims: 5, limits: {nvidia.com/gpu: 1}}}]}"),
        "claims: must be a list, not 5",
    ),
    (thing(f"{{containers: [{MAIN}]}}", name=""), "metadata: the workload has no name; add metadata.name"),
    (
        thing("{containers: [{name: m, resources: {limits: {nvidia.com/gpu: 1}, requests: {nvidia.com/gpu: 2}}}]}"),
        "must be the limit, 1, not 2; write the same in both",
    ),
    (thing(f"{{containers: [{MAIN}, {MAIN}]}}"), '"m" is there twice; rename one'),
    (
        thing(
            f"{{leaderWorkerTemplate: {{workerTemplate: {TEMPLATE}}}}}",
            "leaderworkerset.x-k8s.io/v1",
            "LeaderWorkerSet",
        ),
        "spec.leaderWorkerTemplate.workerTemplate.spec.containers[0]... are not known here, so this stays as it is; convert",
    ),
    (
        thing(f"{{tasks: [{{template: {TEMPLATE}}}]}}", "batch.volcano.sh/v1alpha1", "Job"),
        "spec.tasks[0]...the pods of a batch.volcano.sh/v1alpha1 Job are not known here",
    ),
    (
        thing(f"{{template: {TEMPLATE}}}", "argoproj.io/v1alpha1", "Rollout"),
        "spec.template.spec...the pods of a argoproj.io",
    ),
    (SHARED_ONCE, "data.any: is no configuration of the device plugin: key any: sharing.timeSlicing.resources"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=range(len(WRONG)))
def test_a_sentence_and_the_document_as_it_was(text: str, message: str) -> None:
    result = converted(f"# mine\n{text}")
    said = " ".join(result.problems)
    for part in message.split("..."):
        assert part.strip() in said
        said = said.partition(part.strip())[2]
    assert all(problem.startswith("in.yaml, document 1: ") for problem in result.problems)
    assert documents(result.text) == documents(text)
    assert result.text.startswith("# mine\n# Not converted: ")
    assert converted(result.text).text == result.text


def test_everything_wrong_is_said_at_once() -> None:
    text = pod(
        "nvidia.com/gpu: x, nvidia.com/gpucores: y", "nvidia.com/mig-1: 1", annotations="nvidia.com/vgpu-mode: []"
    )
    assert len(converted(text).problems) == 3
    text = pod(
        "nvidia.com/gpu: 1, nvidia.com/gpucores: 101", "nvidia.com/mig-1: 1", annotations="nvidia.com/vgpu-mode: x"
    )
    assert len(converted(text).problems) == 3


def test_the_rest_is_converted_all_the_same() -> None:
    result = converted("---\n".join([pod("nvidia.com/gpu: x"), pod(GPU).replace("name: p", "name: q")]))
    assert [problem.partition(":")[0] for problem in result.problems] == ["in.yaml, document 1"]
    assert [each["metadata"]["name"] for each in of_kind(result.text, "ResourceClaimTemplate")] == ["q-main-gpu"]
    assert [each["metadata"]["name"] for each in of_kind(result.text, "Pod")] == ["p", "q"]


def test_an_item_of_a_list_stays_beside_one_that_is_converted() -> None:
    items = [yaml.safe_load(pod("nvidia.com/gpu: x")), yaml.safe_load(pod(GPU))]
    result = converted(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    assert "items[0].spec.containers[0]" in result.problems[0]
    assert [each["kind"] for each in documents(result.text)] == ["Pod", "ResourceClaimTemplate", "Pod"]


def eightfold(first: str, line: str) -> str:
    """``first``, named a, eight times in b, that eight times in c, and so on to i."""
    return first + "".join(line.format(new=new, all=", ".join([f"*{old}"] * 8)) for old, new in pairwise("abcdefghi"))


BOMB = eightfold("a: &a [x]\n", "{new}: &{new} [{all}]\n")
MERGES = eightfold("a: &a {a1: 1, a2: 2, a3: 3, a4: 4}\n", "{new}: &{new}\n  <<: [{all}]\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\nspec: [", "line 6, column 1: expected the node content"),
        ("kind: Pod\nkind: Pod", "key .*kind.* is given twice"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: *b", "found undefined alias"),
        (BOMB, "too much, with its aliases written out"),
        (MERGES, "too much, with its aliases written out"),
        ("[" * 3000, "nested too deep|too much"),
        ("{a: " * 90 + "1" + "}" * 90, "nested too deep"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
    ],
    ids=["end", "twice", "tag", "alias", "bomb", "merges", "brackets", "depth", "digits"],
)
def test_what_is_not_yaml_is_left_out_and_spoils_nothing_else(text: str, message: str) -> None:
    kept = "apiVersion: v1\nkind: Service  # kept\n"
    result = converted(f"{kept}---\n{text}\n---\n{kept}")
    (problem,) = result.problems
    assert problem.startswith("in.yaml, document 2: is not YAML that can be used: ")
    assert re.search(message, problem)
    assert result.text.count(kept) == 2
    assert [each["kind"] for each in documents(result.text)] == ["Service", "Service"]
    again = converted(result.text)
    assert (again.text, again.problems) == (result.text, ())


def test_what_stands_in_requests_alone_is_meant_as_a_limit() -> None:
    text = pod("cpu: 1").replace("limits: {cpu: 1}", "requests: {cpu: 1, nvidia.com/gpu: 1}")
    result = converted(text)
    assert result.problems == ()
    assert '# "nvidia.com/gpu" stood in requests alone, which the API server refuses; taken as limits.' in result.text
    (converted_pod,) = of_kind(result.text, "Pod")
    assert converted_pod["spec"]["containers"][0]["resources"] == {"requests": {"cpu": 1}, "claims": [{"name": "gpu"}]}


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ("nvidia.com/gpu: 0", "nvidia.com/gpu: 0 asks for nothing, and is gone."),
        ("nvidia.com/priority: 1", "nvidia.com/priority: 1 asks for nothing, and is gone."),
        ("nvidia.com/gpu: 0, nvidia.com/gpumem: 500", "nvidia.com/gpu: 0, nvidia.com/gpumem: 500 asks for nothing"),
    ],
)
def test_nothing_is_dropped_silently(limits: str, told: str) -> None:
    result = converted(pod(limits))
    assert result.problems == ()
    assert told in result.text
    (converted_pod,) = of_kind(result.text, "Pod")
    assert converted_pod["spec"] == {"containers": [{"name": "main", "image": "x"}]}
