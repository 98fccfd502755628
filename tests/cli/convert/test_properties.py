"""Whatever a manifest is, converting it raises nothing, loses no container, and is done after one time."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dra_driver.allocator.cel_engine import CelEngine
from dra_driver.cli.convert import sizes
from dra_driver.cli.convert.converting import Options
from dra_driver.kube.interface import RESOURCE_CLAIM_TEMPLATES
from dra_driver.simulation.store import EmbeddedApi
from tests.cli.convert.cases import converted
from tests.cli.convert.objects import documents, of_kind
from tests.long_runs import steps

ENGINE = CelEngine()
OPTIONS = [
    Options(),
    Options(sizes.parse(("79Gi,39Gi",), ()), keep_scheduler=True),
    Options(sizes.parse((), ("H100=79Gi",))),
]
UUID = "GPU-03f69c50-207a-2038-9b45-23cac89cb67d"
RESOURCES: dict[str, list[Any]] = {
    "cpu": [1, "500m"],
    "nvidia.com/gpu": [0, 1, 2, "1"],
    "nvidia.com/gpu.shared": [1],
    "nvidia.com/gpumem": [0, 3000, "10k"],
    "nvidia.com/gpumem-percentage": [0, 50, 100],
    "nvidia.com/gpucores": [0, 30, 100],
    "nvidia.com/priority": [0, 1],
    "nvidia.com/mig-1g.10gb": [1, 2],
    "volcano.sh/vgpu-number": [1, 2],
    "volcano.sh/vgpu-memory": [2048],
    "volcano.sh/vgpu-memory-percentage": [25],
    "volcano.sh/gpu-memory": [1024],
}
ANNOTATIONS: dict[str, list[Any]] = {
    "team": ["x"],
    "nvidia.com/use-gputype": ["A100,V100", ""],
    "nvidia.com/nouse-gpuuuid": [UUID],
    "nvidia.com/vgpu-mode": ["mig", "hami-core"],
    "hami.io/gpu-scheduler-policy": ["binpack"],
    "gpu-fraction": ["0.5", 0.5],
    "gpu-memory": ["2000"],
    "gpu-fraction-num-devices": ["2"],
    "gpu-fraction-container-name": ["containers-0"],
    "nvidia.com/container.containers-0.gpu-memory.limit": ["4Gi"],
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=6),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["10k", "16Gi", 1.5, -1, ",", "2", {"nvidia.com/mig-x": 1}]),
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``usual``, now and then something that is no use there."""
    return st.sampled_from([*[True] * 60, False]).flatmap(lambda is_usual: usual if is_usual else ODD)


def some_of(values: dict[str, list[Any]], least: int, most: int) -> st.SearchStrategy[Any]:
    """A few of the keys, each with one of its values."""
    names = st.lists(st.sampled_from(list(values)), min_size=least, max_size=most, unique=True)
    return mostly(
        names.flatmap(lambda keys: st.fixed_dictionaries({key: mostly(st.sampled_from(values[key])) for key in keys}))
    )


def containers_of(kind: str, least: int) -> st.SearchStrategy[Any]:
    """Two at most, named after their place."""
    limits = some_of(RESOURCES, 1, 3)
    resources = st.one_of(
        st.fixed_dictionaries({"limits": limits}),
        st.fixed_dictionaries({}, optional={"limits": limits, "requests": limits, "claims": mostly(st.just([]))}),
    )
    suffix = "-" + "x" * 60
    each = [
        mostly(
            st.fixed_dictionaries(
                {
                    "name": mostly(st.sampled_from([f"{kind}-{at}", f"{kind}-{at}{suffix}"])),
                    "image": st.text(max_size=5),
                },
                optional={"resources": mostly(resources)},
            )
        )
        for at in range(2)
    ]
    return mostly(st.integers(least, 2).flatmap(lambda number: st.tuples(*each[:number]).map(list)))


SPECS = st.fixed_dictionaries(
    {"containers": containers_of("containers", 1)},
    optional={
        "initContainers": containers_of("initContainers", 0),
        "schedulerName": mostly(st.sampled_from(["hami-scheduler", "kai-scheduler", "volcano"])),
        "volumes": ODD,
        "resourceClaims": mostly(st.just([{"name": "gpu", "resourceClaimName": "mine"}])),
    },
)
METADATA = st.fixed_dictionaries(
    {"name": mostly(st.sampled_from(["web", "w" * 63]))},
    optional={"annotations": some_of(ANNOTATIONS, 0, 2)},
)
PODS = st.fixed_dictionaries({"metadata": mostly(METADATA), "spec": mostly(SPECS)})
KINDS = [("v1", "Pod"), ("apps/v1", "Deployment"), ("batch/v1", "CronJob"), ("example.com/v1", "Thing")]


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    version, kind = draw(st.sampled_from(KINDS))
    pod = draw(PODS)
    head = {"apiVersion": version, "kind": kind, "metadata": draw(mostly(METADATA))}
    if kind == "Pod":
        return {**head, **pod}
    if kind == "CronJob":
        return {**head, "spec": draw(mostly(st.just({"jobTemplate": {"spec": {"template": pod}}})))}
    return {**head, "spec": {"template": pod}}


def containers(data: Any) -> list[Any]:
    """Names of everything below a list of containers, in order."""
    found = []
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("containers", "initContainers") and isinstance(value, list):
                found += [each.get("name") if isinstance(each, dict) else each for each in value]
            else:
                found += containers(value)
    elif isinstance(data, list):
        found = [name for each in data for name in containers(each)]
    return found


def check(expression: str) -> str | None:
    ENGINE.compile(expression)
    return None


@settings(max_examples=steps(200, 50), deadline=None)
@given(st.lists(st.one_of(workloads(), workloads(), ODD), min_size=1, max_size=3), st.sampled_from(OPTIONS))
def test_any_manifest(given_objects: list[Any], options: Options) -> None:
    text = yaml.safe_dump_all(given_objects, allow_unicode=True, sort_keys=False)
    result = converted(text, options)
    assert containers(documents(result.text)) == containers(documents(text))
    assert all("document" in problem for problem in result.problems)
    again = converted(result.text, options)
    assert again.text == result.text
    for template in of_kind(result.text, "ResourceClaimTemplate"):
        # One server for each: the same workload may be there twice.
        api = EmbeddedApi(check_expression=check)
        metadata = {**template["metadata"], "namespace": "default"}
        api.create(RESOURCE_CLAIM_TEMPLATES, {**template, "metadata": metadata})


@settings(max_examples=steps(150, 37), deadline=None)
@given(st.text(alphabet=st.sampled_from("-#:{}[]&*!|>'\"% \n\r\tab1,?@`.…\u2028"), max_size=60))
def test_any_text(text: str) -> None:
    """What is not YAML is left out; what is stays as it was."""
    result = converted(text)
    again = converted(result.text)
    assert (again.text, again.problems) == (result.text, ())
    if not result.problems:
        assert result.text == text
