"""A suite to be ended in the middle (``test_run_guard``): it starts each kind of process that the tests use, and waits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from dra_driver.simulation.cluster import EmbeddedCluster
from dra_driver.simulation.process import ChildProcess
from e2e.clusters import programs
from tests.bench.process import Measured
from tests.contract import real_server
from tests.kubelet_plugin.fakes import short_folder
from tests.kubelet_plugin.node_lab import NodeLab
from tests.programs import execute

SAID = "GPU_DRA_TEST_SAID"  # names the folder in which a test says what it has started
_SLEEPER = "tests.simulation.cluster.sleeper"


def _say_and_wait(*started: str) -> None:
    folder = Path(os.environ[SAID])
    (folder / "writing").write_text("\n".join(started))
    (folder / "writing").rename(folder / started[0])
    threading.Event().wait()


def test_everything(tmp_path: Path) -> None:
    started = ["kubelet_plugin.main", "controller.main", _SLEEPER, "sleep 600", "sleep 601", "machine_sleeper"]
    with ExitStack() as stack:
        lab = NodeLab(stack.enter_context(short_folder()), start=execute)
        stack.callback(lab.close)
        lab.plugin()
        cluster = EmbeddedCluster("t4", 1, tmp_path / "cluster")
        stack.callback(cluster.stop)
        cluster.start()
        child = ChildProcess("sleeper", _SLEEPER, [], tmp_path / "sleeper.log")
        stack.callback(child.stop)
        child.start()
        stack.enter_context(
            Measured([sys.executable, "-c", "import time; time.sleep(600)", "machine_sleeper"], tmp_path / "log")
        )
        # One that has a child of its own, in another session.
        parent = stack.enter_context(subprocess.Popen(["sh", "-c", "setsid sleep 600 & sleep 601"]))
        stack.callback(parent.kill)
        found = real_server.find_binaries(programs.NEWEST_KUBERNETES)
        if not isinstance(found, str):
            started += ["bin/etcd-", "kube-apiserver"]
            stack.enter_context(real_server.running(found, tmp_path))
        _say_and_wait("everything", *started)


def test_one_plugin() -> None:
    with ExitStack() as stack:
        lab = NodeLab(stack.enter_context(short_folder()), start=execute)
        stack.callback(lab.close)
        lab.plugin()
        _say_and_wait("plugin", "kubelet_plugin.main")
