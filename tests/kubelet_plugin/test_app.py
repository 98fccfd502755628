"""The plugin put together, in this process: what its health says, and what ends it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.driver_config import add_arguments, identity, load
from dra_driver.observability.loops import Loop
from dra_driver.simulation.hardware import uninstall
from dra_driver.simulation.hardware.driver import replace_driver
from kubelet_plugin.app import PluginApp
from tests.kubelet_plugin.fakes import eventually
from tests.kubelet_plugin.node_lab import NodeLab
from tests.kubelet_plugin.test_process import free_address, get


class App:
    """A started plugin; ``ends`` are the reasons to end the process that it gave."""

    def __init__(self, lab: NodeLab) -> None:
        self.address = free_address()
        self.ends: list[str] = []
        parser = argparse.ArgumentParser()
        add_arguments(parser, "plugin")
        flags = vars(parser.parse_args(lab.arguments(f"--http-endpoint={self.address}")))
        self.app = PluginApp(load(None, {}, flags), identity("plugin", {}, flags), self.ends.append)
        self.app.start()
        lab.wait_ready()


@pytest.fixture
def lab(root: Path) -> Iterator[NodeLab]:
    lab = NodeLab(root)
    yield lab
    lab.close()


@pytest.fixture
def app(lab: NodeLab) -> Iterator[App]:
    app = App(lab)
    yield app
    app.app.stop()
    uninstall()


def test_readiness_names_a_loop_that_stands_still_and_the_process_is_alive(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    eventually(lambda: get(app.address, "/readyz") == (200, "ok\n"))
    still = ("events", "failure-events", "hardware-watch", "hardware-events", "inventory", "reflector-nodeinventories")
    monkeypatch.setattr(
        Loop, "standing_still", lambda loop: f"{loop.name} stands still" if loop.name in still else None
    )
    said = "; ".join(f"{name} stands still" for name in still)
    assert get(app.address, "/readyz") == (503, f"loops: {said}\n")
    assert get(app.address, "/healthz") == (200, "ok\n")


def test_a_replaced_driver_ends_the_process_and_a_half_replaced_one_does_not(lab: NodeLab, app: App) -> None:
    replace_driver(lab.state, libraries=None, module="590.44.01")
    eventually(lambda: "library of this process is gone" in lab.condition("HardwareReady")["message"], timeout=20)
    assert app.ends == []
    replace_driver(lab.state, libraries="590.44.01", module="590.44.01")
    eventually(lambda: app.ends, timeout=20)
    assert app.ends[0].startswith("the NVIDIA driver was replaced: ")
