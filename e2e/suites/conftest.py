"""Options, the cluster, a namespace for each test, skips by what the cluster lacks, and the failure report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from e2e.clusters.interface import Ability, ClusterError
from e2e.clusters.programs import NEWEST_KUBERNETES, cache_folder
from e2e.kit.report import failure_report
from e2e.kit.space import Space, now, unique_name
from e2e.kit.stage import CLUSTERS, DEFAULT_MACHINE, Options, Stage, missing_abilities, open_stage
from e2e.kit.waiting import TimedOut

_TEST_SECONDS = 300
_BEGAN = pytest.StashKey[str]()
_LOGS = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cluster", "the cluster of the end-to-end suite")
    group.addoption("--cluster", choices=CLUSTERS, default="local", help="which cluster (local)")
    group.addoption("--kubernetes", default=NEWEST_KUBERNETES, metavar="MINOR", help=f"({NEWEST_KUBERNETES})")
    group.addoption(
        "--machine", default=None, metavar="NAME", help=f"the machine that nodes simulate ({DEFAULT_MACHINE})"
    )
    group.addoption("--nodes", type=int, default=1, metavar="N", help="how many nodes (1)")
    group.addoption("--cluster-name", default="", metavar="NAME", help="of a local cluster beside another one")
    group.addoption(
        "--without", action="append", default=[], metavar="GATE", help="a feature gate that a local cluster lacks"
    )
    group.addoption("--keep", action="store_true", help="leave the cluster up, with the driver in it")
    group.addoption(
        "--manifest",
        action="append",
        default=[],
        metavar="FILE",
        type=Path,
        help="of yours, applied as it is in the place of deploy/examples by test_examples.py",
    )
    group.addoption("--installed", action="store_true", help="the driver is installed already and stays as it is")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*features): features of Kubernetes that the test is about")
    config.addinivalue_line("markers", "hands(*abilities): what must be possible on the nodes beside the API")
    config.addinivalue_line("markers", "simulated: needs simulated GPUs")
    config.addinivalue_line("markers", "own_install: changes the driver's release, so not with --installed")
    config.addinivalue_line("markers", "last(rank): disturbs the driver or a node; runs after the others, by rank")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            # Of the test alone: the first one's fixtures bring the cluster up, and may build its programs.
            item.add_marker(pytest.mark.timeout(_TEST_SECONDS, func_only=True))
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    marker = item.get_closest_marker("last")
    return int(marker.args[0]) if marker else 0


@pytest.fixture(scope="session")
def options(pytestconfig: pytest.Config) -> Options:
    return Options(
        cluster=pytestconfig.getoption("--cluster"),
        kubernetes=pytestconfig.getoption("--kubernetes"),
        machine=pytestconfig.getoption("--machine"),
        nodes=pytestconfig.getoption("--nodes"),
        keep=pytestconfig.getoption("--keep"),
        name=pytestconfig.getoption("--cluster-name"),
        installed=pytestconfig.getoption("--installed"),
        without=tuple(pytestconfig.getoption("--without")),
    )


@pytest.fixture(scope="session")
def session_stage(options: Options, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        try:
            stage = stack.enter_context(open_stage(options))
        except (ClusterError, TimedOut) as error:
            # One sentence instead of the same one for each test.
            pytest.exit(f"no cluster to test on: {error}", returncode=3)
        yield stage
        if request.session.testsfailed:
            # They go with the cluster.
            logs = cache_folder() / "logs" / f"e2e-{options.cluster}"
            stage.cluster.collect_logs(logs)
            request.config.stash[_LOGS] = logs


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if logs := config.stash.get(_LOGS, None):
        terminalreporter.write_line(f"logs of kubelets, container runtimes and control plane: {logs}")


@pytest.fixture
def stage(session_stage: Stage, options: Options, request: pytest.FixtureRequest) -> Stage:
    """The session's cluster, for a test that it can serve."""
    if reason := _cannot_run(session_stage, options, request.node):
        pytest.skip(reason)
    return session_stage


@pytest.fixture
def space(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Space]:
    """The test's own namespace, which must leave nothing behind."""
    with stage.space(unique_name(request.node.name.removeprefix("test_"))) as space:
        yield space


def _cannot_run(stage: Stage, options: Options, item: pytest.Item) -> str:
    """Why the test cannot run on this cluster; empty when it can."""
    for marker in item.iter_markers("needs"):
        for feature in marker.args:
            if not stage.features.has(feature):
                return f"no {feature}: {stage.features.missing[feature]}"
    abilities: list[Ability] = [ability for marker in item.iter_markers("hands") for ability in marker.args]
    if reason := missing_abilities(stage, abilities):
        return reason
    if item.get_closest_marker("simulated") and not stage.cluster.simulated_machine:
        return "no simulated GPUs (--machine), and no fault is played on real ones"
    if item.get_closest_marker("own_install") and options.installed:
        return "the driver's release is not this session's (--installed)"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[_BEGAN] = now()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds what the cluster says to the report of a failure, before the test's namespace is taken away."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    fixtures: dict[str, object] = getattr(item, "funcargs", {})
    stage = fixtures.get("stage") or fixtures.get("session_stage")
    if report.failed and isinstance(stage, Stage):
        text = failure_report(stage.api, stage.kubectl, _namespaces(fixtures), item.stash.get(_BEGAN, now()))
        report.sections.append(("cluster", text))
    return report  # type: ignore[return-value]


def _namespaces(fixtures: Mapping[str, object]) -> list[Space]:
    """The test's own namespace; of the examples' namespaces that are left to go, the one that came last."""
    leaving = fixtures.get("leaving")
    found = [fixtures.get("space"), *(leaving[-1:] if isinstance(leaving, list) else ())]
    return [space for space in found if isinstance(space, Space)]
