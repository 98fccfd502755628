"""Plugin servers and (fake) kubelet together: lost connections, repeated calls, versions, rolling updates, deadlines."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path

import pytest

from dra_driver.kube.interface import EVENTS, PODS
from dra_driver.simulation.kubelet import KubeletOptions
from dra_driver.simulation.kubelet.plugin import CallFailed
from kubelet_plugin.claims.model import ClaimRef
from tests.kubelet_plugin.fakes import DRIVER, FAST, Cluster, InProcessPlugin, ScriptedPreparer, eventually


class Lab:
    """Starts what a test asks for; everything is stopped when it ends, last first."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack

    def cluster(self, options: KubeletOptions = FAST) -> Cluster:
        cluster = Cluster(self._root, options)
        cluster.kubelet.start()
        self._stack.callback(cluster.kubelet.stop)
        return cluster

    def plugin(
        self, preparer: ScriptedPreparer, pod_uid: str = "uid-1", versions: tuple[str, ...] | None = None
    ) -> InProcessPlugin:
        plugin = (
            InProcessPlugin(self._root, preparer, pod_uid=pod_uid)
            if versions is None
            else InProcessPlugin(self._root, preparer, pod_uid=pod_uid, versions=versions)
        )
        plugin.start()
        self._stack.callback(plugin.stop, grace=0)
        return plugin


@pytest.fixture
def lab(root: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(root, stack)


def run_pod(cluster: Cluster, name: str) -> None:
    """A claim and its pod, until it runs."""
    cluster.claim(name)
    cluster.pod(name, name)
    eventually(lambda: cluster.phase(name) == "Running")


def delete_pod(cluster: Cluster, name: str) -> None:
    cluster.api.delete(PODS, name, "default")
    eventually(lambda: cluster.gone(name))


def failures(cluster: Cluster) -> list[str]:
    events = cluster.api.list(EVENTS).items
    return [event["message"] for event in events if event["reason"] == "FailedPrepareDynamicResources"]


def test_repeated_calls_get_the_same_answer(lab: Lab) -> None:
    cluster = lab.cluster(dataclasses.replace(FAST, repeat_calls=True))
    preparer = ScriptedPreparer(cluster.cdi_dir)
    lab.plugin(preparer)
    run_pod(cluster, "p")
    delete_pod(cluster, "p")
    assert [call.operation for call in cluster.kubelet.calls] == ["prepare", "prepare", "unprepare", "unprepare"]
    assert cluster.kubelet.violations == ()


def test_another_answer_to_a_repeated_call_is_noticed(lab: Lab) -> None:
    cluster = lab.cluster(dataclasses.replace(FAST, repeat_calls=True))
    preparer = ScriptedPreparer(cluster.cdi_dir)

    original = preparer._prepare
    preparer._prepare = lambda claim: original(claim) if len(preparer.prepare_calls) > 1 else ()  # type: ignore[method-assign]
    lab.plugin(preparer)
    run_pod(cluster, "p")
    assert len(cluster.kubelet.violations) == 1


def test_a_kubelet_that_knows_only_the_older_version(lab: Lab) -> None:
    cluster = lab.cluster(dataclasses.replace(FAST, known_services=("v1beta1.DRAPlugin",)))
    lab.plugin(ScriptedPreparer(cluster.cdi_dir))
    run_pod(cluster, "p")
    (plugin,) = cluster.kubelet.plugins.plugins()
    assert plugin.service == "v1beta1.DRAPlugin"
    delete_pod(cluster, "p")


def test_the_first_known_version_is_used(lab: Lab) -> None:
    cluster = lab.cluster()
    lab.plugin(ScriptedPreparer(cluster.cdi_dir), versions=("v9.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAPlugin"))
    assert cluster.kubelet.wait_for_plugin(DRIVER)
    assert [plugin.service for plugin in cluster.kubelet.plugins.plugins()] == ["v1beta1.DRAPlugin"]


def test_a_kubelet_without_a_common_version_refuses_again_and_again(lab: Lab) -> None:
    cluster = lab.cluster(dataclasses.replace(FAST, known_services=("v7.DRAPlugin",)))
    plugin = lab.plugin(ScriptedPreparer())
    eventually(lambda: plugin.connection.state.refusals >= 2)
    assert "plugin supports ['v1.DRAPlugin', 'v1beta1.DRAPlugin']" in plugin.connection.state.refusal
    assert not plugin.connection.alive()
    assert cluster.kubelet.plugins.plugins() == ()
    with pytest.raises(CallFailed, match="is not registered"):
        cluster.kubelet.plugins.get(DRIVER)


def test_a_dropped_connection_costs_a_retry_and_nothing_else(lab: Lab) -> None:
    cluster = lab.cluster()
    preparer = ScriptedPreparer(cluster.cdi_dir)
    entered, release = threading.Event(), threading.Event()

    def wait_once(*_: object) -> None:
        if not entered.is_set():
            entered.set()
            release.wait(5)

    preparer.before = wait_once
    plugin = lab.plugin(preparer)
    cluster.kubelet.wait_for_plugin(DRIVER)
    cluster.claim("p")
    cluster.pod("p", "p")
    assert entered.wait(5)
    cluster.kubelet.drop_connections()
    eventually(lambda: failures(cluster))
    release.set()
    eventually(lambda: cluster.phase("p") == "Running")
    eventually(plugin.connection.alive)
    assert plugin.connection.state.registrations == 1
    delete_pod(cluster, "p")
    assert not preparer.prepared


def test_a_restarted_kubelet_registers_again_on_the_same_socket(lab: Lab) -> None:
    cluster = lab.cluster()
    plugin = lab.plugin(ScriptedPreparer(cluster.cdi_dir))
    assert cluster.kubelet.wait_for_plugin(DRIVER)
    cluster.kubelet.stop()
    eventually(lambda: not plugin.connection.alive())
    cluster.kubelet.start()
    eventually(lambda: plugin.connection.alive() and plugin.connection.state.registrations == 2)
    run_pod(cluster, "p")


def test_a_rolling_update_loses_and_doubles_nothing(lab: Lab) -> None:
    """Old and new share their state, as two real instances share files; calls go to the newest one."""
    cluster = lab.cluster(dataclasses.replace(FAST, wipe_delay=5))
    old_preparer, new_preparer = ScriptedPreparer(cluster.cdi_dir), ScriptedPreparer(cluster.cdi_dir)
    new_preparer.prepared = old_preparer.prepared
    old = lab.plugin(old_preparer, "old")
    assert cluster.kubelet.wait_for_plugin(DRIVER)
    run_pod(cluster, "before")
    new = lab.plugin(new_preparer, "new")
    assert cluster.kubelet.wait_for_plugin(DRIVER, count=2)

    with futures.ThreadPoolExecutor(4) as pool:
        starting = [pool.submit(run_pod, cluster, f"during-{number}") for number in range(4)]
        old.stop(grace=5)
        for pod in starting:
            pod.result()
    assert [plugin.endpoint for plugin in cluster.kubelet.plugins.plugins()] == [str(new.paths.dra)]
    for name in ("before", *(f"during-{number}" for number in range(4))):
        delete_pod(cluster, name)

    prepared = [uid for call in cluster.kubelet.calls if call.operation == "prepare" for uid in call.claim_uids]
    assert len(prepared) == len(set(prepared)) == 5
    assert failures(cluster) == []
    assert len(old_preparer.prepare_calls) == 1
    assert not new_preparer.prepared
    assert cluster.kubelet.wiper.wipes == [""]


def test_after_the_newest_instance_stops_the_older_one_is_used(lab: Lab) -> None:
    cluster = lab.cluster()
    old_preparer, new_preparer = ScriptedPreparer(cluster.cdi_dir), ScriptedPreparer(cluster.cdi_dir)
    lab.plugin(old_preparer, "old")
    cluster.kubelet.wait_for_plugin(DRIVER)
    new = lab.plugin(new_preparer, "new")
    cluster.kubelet.wait_for_plugin(DRIVER, count=2)
    run_pod(cluster, "p")
    new.stop()
    delete_pod(cluster, "p")
    assert len(new_preparer.prepare_calls) == 1
    assert len(old_preparer.unprepare_calls) == 1


def test_work_past_the_deadline_is_joined_by_the_retry(lab: Lab) -> None:
    """The kubelet gives up after its deadline; the answer of the retry is that of the work already begun."""
    cluster = lab.cluster(dataclasses.replace(FAST, call_timeout=0.3))
    preparer = ScriptedPreparer(cluster.cdi_dir)
    done, begun = threading.Event(), []

    def slow(operation: str, claims: Sequence[ClaimRef], timeout: float) -> None:
        if operation == "prepare":
            begun.append(timeout)
            done.wait(2)  # far past every deadline given

    preparer.before = slow
    lab.plugin(preparer)
    cluster.kubelet.wait_for_plugin(DRIVER)
    cluster.claim("p")
    cluster.pod("p", "p")
    eventually(lambda: any("DeadlineExceeded" in text for text in failures(cluster)))
    assert all(timeout < 0.3 for timeout in begun)
    done.set()
    eventually(lambda: cluster.phase("p") == "Running")


def test_registration_works_while_calls_hang(lab: Lab) -> None:
    cluster = lab.cluster()
    preparer = ScriptedPreparer(cluster.cdi_dir)
    release = threading.Event()
    preparer.before = lambda operation, claims, timeout: (release.wait(5), None)[1]
    plugin = lab.plugin(preparer)
    cluster.kubelet.wait_for_plugin(DRIVER)
    for number in range(8):
        cluster.claim(f"c{number}")
        cluster.pod(f"p{number}", f"c{number}")
    eventually(lambda: len(preparer.prepare_calls) == 8)
    cluster.kubelet.restart()
    eventually(lambda: plugin.connection.state.registrations == 2, timeout=5)
    release.set()
    eventually(lambda: cluster.phase("p0") == "Running")
