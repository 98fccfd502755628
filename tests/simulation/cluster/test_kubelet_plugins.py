"""Registration as the kubelet does it: deadlines, back-off, odd sockets, several plugins of one driver."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from api.kubelet import registration_v1_pb2 as pb
from api.kubelet.services import REGISTRATION
from dra_driver.simulation.kubelet.health import HealthCache
from dra_driver.simulation.kubelet.plugin import CallFailed
from dra_driver.simulation.kubelet.plugins import PluginManager
from dra_driver.simulation.kubelet.wiper import SliceWiper
from dra_driver.simulation.store import EmbeddedApi
from tests.kubelet_plugin.fakes import DRIVER, FAST, NODE, InProcessPlugin, ScriptedPreparer, eventually, short_folder

OPTIONS = dataclasses.replace(FAST, get_info_timeout=0.2)


class Registry:
    """The plugin manager with its folder, and registration servers with scripted answers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "plugins_registry"
        self.folder.mkdir()
        self.manager = PluginManager(NODE, self.folder, SliceWiper(EmbeddedApi(), NODE, 1), HealthCache(30), OPTIONS)
        self.manager.start()
        self._servers: list[grpc.Server] = []
        self.statuses: list[tuple[bool, str]] = []

    def serve(self, name: str, answer: Callable[[], pb.PluginInfo]) -> None:
        def notify(request: pb.RegistrationStatus, context: grpc.ServicerContext) -> pb.RegistrationStatusResponse:
            self.statuses.append((request.plugin_registered, request.error))
            return pb.RegistrationStatusResponse()

        handler = REGISTRATION.handler(lambda request, context: answer(), notify)
        server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler])
        server.add_insecure_port(f"unix:{self.folder / name}")
        server.start()
        self._servers.append(server)

    def stop(self) -> None:
        self.manager.stop()
        for server in self._servers:
            server.stop(0).wait()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with short_folder() as root:
        registry = Registry(root)
        yield registry
        registry.stop()


def info(endpoint: str = "/nowhere/dra.sock", **fields: object) -> pb.PluginInfo:
    values = {"type": "DRAPlugin", "name": DRIVER, "supported_versions": ["v1.DRAPlugin"], **fields}
    return pb.PluginInfo(endpoint=endpoint, **values)  # type: ignore[arg-type]


def test_a_slow_get_info_is_given_up_and_asked_again(registry: Registry) -> None:
    asked, release = [], threading.Event()

    def slow() -> pb.PluginInfo:
        asked.append(1)
        release.wait(5)
        return info()

    registry.serve("slow.sock", slow)
    eventually(lambda: len(asked) >= 2)
    assert registry.manager.plugins() == ()
    release.set()
    eventually(registry.manager.plugins)


def test_other_types_of_plugin_are_refused(registry: Registry) -> None:
    registry.serve("csi.sock", lambda: info(type="CSIPlugin"))
    eventually(lambda: registry.statuses)
    assert registry.statuses[0][0] is False
    assert "no handler registered for plugin type: CSIPlugin" in registry.statuses[0][1]


def test_one_endpoint_is_registered_once(registry: Registry) -> None:
    registry.serve("a.sock", info)
    eventually(registry.manager.plugins)
    registry.serve("b.sock", info)
    eventually(lambda: len(registry.statuses) >= 2)
    assert registry.statuses[0] == (True, "")
    assert "already registered" in registry.statuses[1][1]
    assert len(registry.manager.plugins()) == 1


def test_hidden_names_files_and_dead_sockets_are_no_plugins(registry: Registry) -> None:
    registry.serve(".hidden.sock", info)
    (registry.folder / "file.sock").touch()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(registry.folder / "dead.sock"))
    registry.serve("good.sock", info)
    eventually(registry.manager.plugins)
    assert registry.manager.registrations == [(DRIVER, "/nowhere/dra.sock")]


def test_an_unreachable_endpoint_is_registered_but_not_connected(registry: Registry) -> None:
    registry.serve("a.sock", info)
    plugin = eventually(registry.manager.plugins)[0]
    assert not plugin.connected
    with pytest.raises(CallFailed, match=r"NodePrepareResources: rpc error: code = Unavailable"):
        plugin.prepare([], timeout=1)


def test_the_newest_connected_plugin_is_used(registry: Registry) -> None:
    old, new = (InProcessPlugin(registry.root, ScriptedPreparer(), pod_uid=uid) for uid in ("old", "new"))
    old.start()
    assert registry.manager.wait_for(DRIVER)
    new.start()
    assert registry.manager.wait_for(DRIVER, count=2)
    assert registry.manager.get(DRIVER).endpoint == str(new.paths.dra)
    new.stop(grace=0)
    eventually(lambda: len(registry.manager.plugins()) == 1)
    assert registry.manager.get(DRIVER).endpoint == str(old.paths.dra)
    old.stop(grace=0)
    eventually(lambda: registry.manager.plugins() == ())
    with pytest.raises(CallFailed, match=r"DRA driver gpu\.nvidia\.com is not registered"):
        registry.manager.get(DRIVER)


def test_a_socket_made_anew_is_a_new_plugin(registry: Registry) -> None:
    first, second = (
        InProcessPlugin(registry.root, ScriptedPreparer()),
        InProcessPlugin(registry.root, ScriptedPreparer()),
    )
    first.start()
    eventually(lambda: len(registry.manager.registrations) == 1)
    first.stop(grace=0)
    second.start()
    eventually(lambda: len(registry.manager.registrations) == 2)
    second.stop(grace=0)
