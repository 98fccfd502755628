"""The kubelet's own record: its claims and their names, or no word at all."""

from __future__ import annotations

import pytest

from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.takeover.kubelet_claims import NO_WORD, decode
from tests.kubelet_plugin.takeover.nvidia import DATA, checked

_UID = "067798be-454e-4be4-9047-1aa06aea63f7"
_FILE = (DATA / "dra_manager_state.json").read_bytes()


def test_claims_have_names_and_others_are_forgotten() -> None:
    found = decode(_FILE)
    assert found.ref(_UID) == ClaimRef("default", "example", _UID)
    assert not found.has_forgotten(_UID)
    assert found.has_forgotten("another")
    assert found.ref("another") == ClaimRef("", "", "another")
    assert found.ref("another", "ns", "name") == ClaimRef("ns", "name", "another")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        _FILE.replace(b"example", b"exampla"),
        checked({"kind": "DRACheckpoint", "apiVersion": "checkpoint.dra.kubelet.k8s.io/v2", "ClaimInfoStateList": []}),
        checked({"kind": "DRACheckpoint", "apiVersion": "checkpoint.dra.kubelet.k8s.io/v1", "Entries": []}),
        checked([]),
    ],
)
def test_a_file_of_another_form_says_nothing(data: bytes) -> None:
    assert decode(data) == NO_WORD
    assert not NO_WORD.has_forgotten(_UID)


def test_a_node_without_claims_has_forgotten_all() -> None:
    empty = {"kind": "DRACheckpoint", "apiVersion": "checkpoint.dra.kubelet.k8s.io/v1", "ClaimInfoStateList": None}
    assert decode(checked(empty)).has_forgotten(_UID)
