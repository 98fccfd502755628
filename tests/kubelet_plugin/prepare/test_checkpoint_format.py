"""The checkpoint's bytes: whatever happens to them, reading never fails and loses no claim that was not hit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelet_plugin.claims.entry import ClaimEntry, ClaimState, HeldDevice, StepRecord, entry_from_json, entry_to_json
from kubelet_plugin.claims.model import ClaimRef, PreparedDevice
from kubelet_plugin.prepare.checkpoint_format import decode_file, encode_claim, encode_file
from tests.kubelet_plugin.prepare.node import BOOT, entry
from tests.long_runs import steps

RICH = ClaimEntry(
    ClaimRef("näme", 'quo"te', "uid-2"),
    ClaimState.PREPARE_STARTED,
    "boot-0",
    (
        HeldDevice(PreparedDevice(("a", "b"), "pool", "gpu-1", ("k/c=x", "k/c=y"), "share"), "GPU-1"),
        HeldDevice(PreparedDevice(("c",), "pool", "gpu-2", ()), "GPU-2", admin_access=True),
    ),
    (StepRecord("GpuInstance", {"gpu": "GPU-1"}, {"id": "3"}), StepRecord("CDIFile")),
)
ENTRIES = {item.ref.uid: item for item in (entry("uid-1"), RICH, entry("uid-3", "gpu-3"), entry("uid-4", "gpu-4"))}


def encoded(entries: dict[str, ClaimEntry] = ENTRIES) -> bytes:
    return encode_file(BOOT, {uid: encode_claim(item) for uid, item in entries.items()})


def span(data: bytes, uid: str) -> range:
    """Where the claim's own line is."""
    start = data.index(f'"{uid}":'.encode())
    return range(start, data.index(b"\n", start))


def test_everything_survives() -> None:
    reading = decode_file(encoded())
    assert (reading.entries, reading.problems) == (ENTRIES, ())
    assert decode_file(encode_file(BOOT, {})).problems == ()


def test_it_is_json_with_the_promised_header() -> None:
    document = json.loads(encoded())
    assert list(document) == ["version", "checksum", "bootID", "claims"]
    assert list(document["claims"]) == sorted(ENTRIES)


@settings(max_examples=steps(300, 75), deadline=None)
@given(st.data())
def test_a_changed_byte_costs_at_most_its_claim(data: st.DataObject) -> None:
    whole = encoded()
    position = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[position]))
    reading = decode_file(whole[:position] + bytes([byte]) + whole[position + 1 :])
    hit = {uid for uid in ENTRIES if position in span(whole, uid)}
    for uid, item in ENTRIES.items():
        if uid not in hit:
            assert reading.entries[uid] == item
    assert set(reading.entries) <= set(ENTRIES)
    assert all(reading.entries[uid] == ENTRIES[uid] for uid in reading.entries)
    # A byte that changes nothing JSON can see (white space) may go unnoticed; then nothing was lost either.
    assert reading.problems or reading.entries == ENTRIES


@settings(max_examples=steps(150, 37), deadline=None)
@given(st.integers(0, len(encoded())))
def test_a_cut_off_file_keeps_every_whole_claim(length: int) -> None:
    whole = encoded()
    reading = decode_file(whole[:length])
    for uid in ENTRIES:
        if span(whole, uid).stop <= length:
            assert reading.entries[uid] == ENTRIES[uid]
    assert reading.problems or length >= len(whole) - 1


@settings(max_examples=steps(200, 50), deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_can_be_read(data: bytes) -> None:
    reading = decode_file(data)
    assert not reading.entries
    assert reading.problems


def test_a_removed_claim_is_noticed() -> None:
    lines = encoded().splitlines(keepends=True)
    reading = decode_file(b"".join(line for line in lines if b"uid-3" not in line))
    assert set(reading.entries) == set(ENTRIES) - {"uid-3"}
    assert reading.problems


def test_a_claim_under_another_uid_is_refused() -> None:
    reading = decode_file(encoded().replace(b'"uid-3":{"checksum"', b'"uid-9":{"checksum"'))
    assert set(reading.entries) == set(ENTRIES) - {"uid-3"}


def test_a_newer_version_keeps_what_this_one_can_read() -> None:
    reading = decode_file(encoded().replace(b'{"version":1', b'{"version":7'))
    assert reading.newer == 7
    assert reading.entries == ENTRIES
    assert "version 7" in reading.problems[0]


@pytest.mark.parametrize(
    "data",
    [
        b'{"checksum":1083090442,"v1":{},"v2":{"checksum":1783697754,"nodeBootID":"x"}}',  # NVIDIA's
        b"[]",
        b'{"version":"1"}',
        b'{"version":1}',
        b'{"version":1,"claims":[],"bootID":1,"checksum":""}',
        b"[" * 100_000,
        b"",
    ],
)
def test_files_of_others(data: bytes) -> None:
    reading = decode_file(data)
    assert not reading.entries
    assert reading.problems


def test_entries_of_unknown_shape_are_refused() -> None:
    document = entry_to_json(RICH)
    for broken in (
        {**document, "state": "Unheard"},
        {**document, "devices": [{}]},
        {**document, "steps": [{"kind": 1, "arguments": {}, "result": {}}]},
        {**document, "uid": 7},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            entry_from_json(broken)
    assert entry_from_json(document) == replace(RICH)
