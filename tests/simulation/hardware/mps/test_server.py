"""What a server does that takes many clients to see: the end of room, without processes for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.simulation.hardware import create_state
from dra_driver.simulation.hardware.mps import link
from dra_driver.simulation.hardware.mps.devices import State
from dra_driver.simulation.hardware.mps.link import Link
from dra_driver.simulation.hardware.mps.logs import Log
from dra_driver.simulation.hardware.mps.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    create_state("t4", tmp_path / "gpus.json")
    mine, its = link.pair()
    made = Server(State(tmp_path / "gpus.json"), Log(tmp_path / "server.log", "Server"), Link(its))
    mine.shutdown(socket.SHUT_RD)  # nobody listens to what it says of itself
    made.start({"devices": "0", "percentage": 100.0, "limits": {}})
    yield made
    made.end()
    mine.close()
    its.close()


def test_a_device_has_room_for_so_many_clients(server: Server) -> None:
    pipes: list[int] = []

    def connect() -> str:
        reading, answer = os.pipe()
        lifeline, writing = os.pipe()
        pipes.extend((reading, writing))
        server.told({"do": "client", "text": f"{os.getpid()} - - - -"}, (answer, lifeline))
        return os.read(reading, 4096).decode()

    try:
        answers = [connect() for _ in range(49)]
    finally:
        for descriptor in (*pipes, *server.lifelines()):
            os.close(descriptor)
    assert all(each.startswith("ok\n") for each in answers[:48])
    assert answers[48].startswith("error\nCUDA_ERROR_MPS_MAX_CLIENTS_REACHED: 48 clients have GPU-")
