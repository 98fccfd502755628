"""Socket names within 107 bytes, and who may take a path."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dra_driver.errors import StateError
from kubelet_plugin.endpoint.sockets import SocketPaths, remove_stale, socket_paths
from kubelet_plugin.node.socket_file import Listener, make_free, probe

DRIVER = "gpu.nvidia.com"
UID = "3f9a1c52-8c1e-4d8a-9a53-0f0f7f1f2f3f"


@contextmanager
def listening(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def stale(path: Path) -> Path:
    with listening(path):
        pass
    return path


def test_names_without_and_with_a_pod_uid() -> None:
    plugins, registry = Path("/var/lib/kubelet/plugins"), Path("/var/lib/kubelet/plugins_registry")
    assert socket_paths(DRIVER, plugins, registry) == SocketPaths(
        plugins / "gpu.nvidia.com/dra.sock", registry / "gpu.nvidia.com-reg.sock"
    )
    assert socket_paths(DRIVER, plugins, registry, UID) == SocketPaths(
        plugins / f"gpu.nvidia.com/dra-{UID}.sock", registry / f"gpu.nvidia.com-{UID}-reg.sock"
    )


def test_long_paths_are_shortened_step_by_step() -> None:
    """The expected hashes were computed apart: base64url of sha256(uid)[:8] and of sha256(driver NUL uid)[:16]."""

    def names(plugins_length: int, registry_length: int) -> tuple[str, str]:
        plugins, registry = Path("/" + "k" * (plugins_length - 1)), Path("/" + "k" * (registry_length - 1))
        paths = socket_paths(DRIVER, plugins, registry, UID)
        assert len(bytes(paths.dra)) <= 107
        assert len(bytes(paths.registration)) <= 107
        return paths.dra.name, paths.registration.name

    assert names(46, 46) == (f"dra-{UID}.sock", f"gpu.nvidia.com-{UID}-reg.sock")
    assert names(47, 47) == ("dra-YkTvv7EthcQ.sock", "gpu.nvidia.com-YkTvv7EthcQ-reg.sock")
    # The shortest form only helps drivers with a longer name than ours.
    registry = Path("/" + "k" * 70)
    paths = socket_paths("compute.gpu.nvidia.com", Path("/p"), registry, UID)
    assert paths.registration.name == "dra-41L9VZmh4whxF1PAmC2tRg-reg.sock"


def test_a_root_that_is_too_long_is_an_error_that_says_so() -> None:
    with pytest.raises(StateError, match="the kernel allows 107"):
        socket_paths(DRIVER, Path("/" + "p" * 110), Path("/r"))
    with pytest.raises(StateError, match="shorter kubelet root"):
        socket_paths(DRIVER, Path("/p"), Path("/" + "r" * 110), UID)


def test_probe_tells_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    assert probe(path) is Listener.ABSENT
    with listening(path):
        assert probe(path) is Listener.ALIVE
    assert probe(path) is Listener.STALE
    path.unlink()
    path.touch()
    assert probe(path) is Listener.FOREIGN


def test_make_free_removes_only_what_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "new-folder" / "a.sock"
    make_free(path)
    assert path.parent.is_dir()
    stale(path)
    make_free(path)
    assert not path.exists()
    with listening(path), pytest.raises(StateError, match="another process serves"):
        make_free(path)
    path.unlink()
    path.touch()
    with pytest.raises(StateError, match="not a socket"):
        make_free(path)
    assert path.exists()


def test_make_free_names_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"folder .*/file for socket a.sock"):
        make_free(tmp_path / "file" / "a.sock")


def test_sockets_of_dead_instances_go_and_those_of_others_stay(tmp_path: Path) -> None:
    paths = socket_paths(DRIVER, tmp_path / "p", tmp_path / "r", "mine")
    own = stale(paths.dra)
    dead = [
        stale(paths.dra.with_name("dra.sock")),
        stale(paths.dra.with_name("dra-dead.sock")),
        stale(tmp_path / "r/gpu.nvidia.com-dead-reg.sock"),
        stale(tmp_path / "r/gpu.nvidia.com-reg.sock"),
    ]
    foreign = [stale(tmp_path / "r/other.example.com-dead-reg.sock"), stale(tmp_path / "r/dra-abc-reg.sock")]
    with listening(paths.dra.with_name("dra-alive.sock")), listening(tmp_path / "r/gpu.nvidia.com-alive-reg.sock"):
        removed = remove_stale(DRIVER, paths, wait=lambda seconds: None)
        assert sorted(removed) == sorted(dead)
        assert probe(paths.dra.with_name("dra-alive.sock")) is Listener.ALIVE
    assert own.exists()
    assert all(path.exists() for path in foreign)


def test_a_socket_that_comes_alive_between_two_looks_stays(tmp_path: Path) -> None:
    paths = socket_paths(DRIVER, tmp_path / "p", tmp_path / "r", "mine")
    late = paths.dra.with_name("dra-late.sock")
    late.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(late))  # bound but not listening yet: it refuses, as a dead one does
        assert remove_stale(DRIVER, paths, wait=lambda seconds: server.listen()) == ()
    assert late.exists()
