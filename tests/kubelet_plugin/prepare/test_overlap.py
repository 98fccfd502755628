"""An old and a new plugin process on one node, as during a rolling update: no claim lost, no device with two owners."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cdi.driver_root import small_root
from tests.kubelet_plugin.prepare.node import TestNode

REPOSITORY = Path(__file__).parents[3]
PROGRAM = "tests.kubelet_plugin.prepare.overlap_plugin"

pytestmark = pytest.mark.process


class Plugin:
    """A plugin process; one call at a time."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, str(folder)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        assert self._read() == "ready"

    def call(self, operation: str, *uids: str) -> dict[str, str | None]:
        assert self._process.stdin
        with self._lock:
            self._process.stdin.write(f"{operation} {' '.join(uids)}\n")
            self._process.stdin.flush()
            answers: dict[str, str | None] = json.loads(self._read())
            return answers

    def end(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(20) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[tuple[Plugin, Plugin]]:
    small_root(tmp_path / "root", gpus=8)
    pair = Plugin(tmp_path), Plugin(tmp_path)
    yield pair
    for plugin in pair:
        plugin.end()


def test_each_sees_what_the_other_did(plugins: tuple[Plugin, Plugin], tmp_path: Path) -> None:
    old, new = plugins
    node = TestNode(tmp_path)
    assert old.call("prepare", "a-1", "a-2") == {"a-1": None, "a-2": None}
    assert new.call("prepare", "a-1", "b-2", "b-3") == {"a-1": None, "b-2": "DeviceInUse", "b-3": None}
    assert set(node.checkpoint().entries()) == {"a-1", "a-2", "b-3"}
    assert new.call("unprepare", "a-2") == {"a-2": None}
    assert old.call("prepare", "b-2") == {"b-2": None}
    assert old.call("unprepare", "b-3", "b-2", "a-1") == {"b-3": None, "b-2": None, "a-1": None}
    assert node.cdi.claim_uids() == ()
    assert node.left_overs() == []


def test_both_at_once(plugins: tuple[Plugin, Plugin], tmp_path: Path) -> None:
    """The same claims and rivals for the same GPUs, through both plugins at the same time."""
    node = TestNode(tmp_path)
    with ThreadPoolExecutor(2) as callers:
        for turn in range(6):
            claims = [f"t{turn}-{gpu}" for gpu in range(8)]
            rivals = [f"r{turn}-{gpu}" for gpu in range(4)]
            calls = (
                callers.submit(plugins[0].call, "prepare", *claims),
                callers.submit(plugins[1].call, "prepare", *reversed(rivals), *reversed(claims)),
            )
            answers = [call.result(30) for call in calls]
            entries = node.checkpoint().entries()
            owners: dict[str, list[str]] = {}
            for uid, entry in entries.items():
                owners.setdefault(entry.prepared[0].device_name, []).append(uid)
            assert {name: len(uids) for name, uids in owners.items()} == {f"gpu-{gpu}": 1 for gpu in range(8)}
            assert set(node.cdi.claim_uids()) == set(entries)
            for answer in answers:
                assert set(answer.values()) <= {None, "DeviceInUse"}
                assert all((reason is None) == (uid in entries) for uid, reason in answer.items())
            everything = [*claims, *rivals]
            undone = [callers.submit(plugin.call, "unprepare", *everything) for plugin in plugins]
            assert all(set(call.result(30).values()) == {None} for call in undone)
            assert not node.checkpoint().entries()
            assert node.left_overs() == []


def test_the_old_one_dies_and_the_new_one_goes_on(tmp_path: Path) -> None:
    small_root(tmp_path / "root", gpus=8)
    old, new = Plugin(tmp_path), Plugin(tmp_path)
    assert old.call("prepare", "a-1") == {"a-1": None}
    old.kill()
    assert new.call("prepare", "a-1", "a-2", "b-1") == {"a-1": None, "a-2": None, "b-1": "DeviceInUse"}
    assert new.call("unprepare", "a-1", "a-2") == {"a-1": None, "a-2": None}
    new.end()
    assert TestNode(tmp_path).left_overs() == []
