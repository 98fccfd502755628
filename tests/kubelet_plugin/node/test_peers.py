"""Who is connected to a socket of ours, as the kernel says it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelet_plugin.node.peers import Peer, peers
from tests.kubelet_plugin.fakes import short_folder


@pytest.fixture
def path() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "a.sock"


def test_those_who_are_connected_and_no_others(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(path))
        listening.listen()
        assert peers(path) == ()
        client.connect(str(path))
        with listening.accept()[0]:
            assert peers(path) == (Peer(os.getpid(), os.getuid()),)
            assert peers(path.with_name("b.sock")) == ()
        assert peers(path) == ()


def test_listing_leaves_connections_as_they_are(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(path))
        listening.listen()
        client.connect(str(path))
        with listening.accept()[0] as accepted:
            for _ in range(3):
                peers(path)
            client.sendall(b"still")
            assert accepted.recv(5) == b"still"
