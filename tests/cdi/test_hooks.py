"""Which nvidia-cdi-hook is used: where it is, whether a runtime could run it, and which hooks it has."""

from __future__ import annotations

import logging
import os
import struct
import time
from pathlib import Path

import pytest

from dra_driver.cdi import file_states, hooks
from dra_driver.cdi.hooks import HookFinder, HookPlace, HookProgram
from dra_driver.cdi.roots import Root
from dra_driver.errors import HardwareError
from dra_driver.simulation.hardware import host_root
from dra_driver.simulation.hardware.state_file import create_state
from dra_driver.simulation.hardware.toolkit import Toolkit
from tests.cdi.driver_root import add_file, add_link

HOOK = "/usr/bin/nvidia-cdi-hook"
OPERATOR = "/usr/local/nvidia/toolkit/nvidia-cdi-hook"


def finder(root: Path, *paths: str, host: str = "/", required: bool = False) -> HookFinder:
    return HookFinder([HookPlace(Root(root, host), path, required) for path in paths or (HOOK,)], "x86_64")


def program_for(machine: int) -> bytes:
    """The beginning of a 64-bit little-endian ELF file."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44)


def add_pipe(root: Path) -> None:
    add_file(root, HOOK).unlink()
    os.mkfifo(root / HOOK[1:])


def _has_profile(root: Path) -> bool:
    found = finder(root).find()
    assert found is not None
    return found.application_profile


def test_without_a_hook_there_is_none(tmp_path: Path) -> None:
    assert finder(tmp_path, HOOK, OPERATOR).find() is None


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda root: add_file(root, HOOK), "is not executable"),
        (lambda root: add_file(root, HOOK, b"", executable=True), "is empty"),
        (lambda root: (root / HOOK[1:]).mkdir(parents=True), "is a folder"),
        (
            lambda root: add_file(root, HOOK, program_for(183), executable=True),
            "is a program for aarch64, and .* x86_64",
        ),
        (lambda root: add_link(root, HOOK, "/opt/gone"), "is a link to /opt/gone that leads to no file in /"),
        (lambda root: add_link(root, HOOK, "nvidia-cdi-hook"), "is a link to nvidia-cdi-hook that leads to no file"),
        (add_pipe, "is not a file"),
    ],
    ids=["mode", "empty", "folder", "machine", "dangling", "circle", "pipe"],
)
def test_a_hook_that_cannot_be_used_is_said(make: object, problem: str, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path)
    with pytest.raises(HardwareError, match=rf"{HOOK} \(seen here as {tmp_path}{HOOK}\) {problem}") as caught:
        finder(tmp_path).find()
    assert caught.value.retryable
    assert caught.value.hint == f"install nvidia-container-toolkit anew, or remove {HOOK} to do without hooks"


def test_a_configured_hook_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match=r"/opt/hook .* is not there") as caught:
        finder(tmp_path, "/opt/hook", required=True).find()
    assert "set nvidia-cdi-hook-path" in caught.value.hint


def test_one_that_can_be_used_is_used_and_the_other_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_link(tmp_path, HOOK, "/opt/gone")
    add_file(tmp_path, OPERATOR, program_for(62), executable=True)
    look = finder(tmp_path, HOOK, OPERATOR)
    with caplog.at_level(logging.WARNING):
        assert look.find() == look.find() == HookProgram(OPERATOR)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(f"another nvidia-cdi-hook is used: the CDI hook cannot be used: {HOOK} ")
    assert f"remove {HOOK}" in told


def test_absolute_links_are_followed_inside_the_hosts_root(tmp_path: Path) -> None:
    """As Debian's alternatives. Followed from our container they would end in our container."""
    add_link(tmp_path, HOOK, "/etc/alternatives/nvidia-cdi-hook")
    add_link(tmp_path, "/etc/alternatives/nvidia-cdi-hook", "/opt/nvidia/hook")
    add_file(tmp_path, "/opt/nvidia/hook", program_for(62), executable=True)
    assert finder(tmp_path).find() == HookProgram(HOOK), "the host follows the link as we did"
    below = finder(tmp_path, host="/run/nvidia/driver").find()
    assert below == HookProgram("/run/nvidia/driver/opt/nvidia/hook"), "the host would leave the driver root"


def test_the_hooks_are_those_of_the_toolkit_that_is_there(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    create_state("l40s", state)
    look = finder(tmp_path / "host")
    for toolkit in Toolkit:
        host_root.build(tmp_path / "host", state, toolkit)
        found = look.find()
        assert found is not None
        assert found.application_profile == (toolkit is Toolkit.V1_20)


def test_a_name_across_two_reads_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_CHUNK", 64)
    for before in range(64, 128, 7):
        add_file(tmp_path, HOOK, b"x" * before + b"update-application-profile" + b"y" * 50, executable=True)
        assert _has_profile(tmp_path)
    add_file(tmp_path, HOOK, b"x" * 100 + b"update-application-profil" + b"y" * 50, executable=True)
    assert not _has_profile(tmp_path)


def test_nvidia_ctk_has_its_hooks_below_a_subcommand(tmp_path: Path) -> None:
    add_file(tmp_path, "/usr/bin/nvidia-ctk", program_for(62), executable=True)
    found = finder(tmp_path, "/usr/bin/nvidia-ctk").find()
    assert found is not None
    assert found.arguments == ("nvidia-ctk", "hook")


def test_the_program_is_read_again_only_when_it_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_states, "_SETTLED_NS", -1)
    add_file(tmp_path, HOOK, program_for(62), executable=True)
    look = finder(tmp_path)
    first = look.find()
    assert look.find() is first
    add_file(tmp_path, "/new", b"#!/bin/sh\n# update-application-profile\n", executable=True).rename(
        tmp_path / HOOK[1:]
    )
    second = look.find()
    assert second == HookProgram(HOOK, application_profile=True)
    (tmp_path / HOOK[1:]).unlink()
    assert look.find() is None


def test_a_program_that_is_still_being_written_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "_SETTLED_NS", time.time_ns())
    add_file(tmp_path, HOOK, program_for(62), executable=True)
    look = finder(tmp_path)
    assert look.find() is not look.find()
