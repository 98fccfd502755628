"""Specs to files and back: NVIDIA's bytes, every text survives, a strict reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.cdi.decode import decode
from dra_driver.cdi.encode import encode, to_dict
from dra_driver.cdi.spec import ContainerEdits, Device, DeviceNode, Hook, Mount, NetDevice, Spec, SpecError
from dra_driver.simulation.runtime.cdi import read_spec

RECORDED = sorted((Path(__file__).parents[1] / "data" / "nvidia-cdi").glob("*.yaml"))

EVERYTHING = Spec(
    kind="vendor.example/class",
    annotations=(("a", "1"), ("b", "true")),
    devices=(
        Device("1dev", ContainerEdits(env=("A=1",)), (("x", "y: z"),)),
        Device("d:2", ContainerEdits(env=("B=",))),
    ),
    edits=ContainerEdits(
        env=("EMPTY=", "COLON=a: b", "HASH=a #b", "UNICODE=ü", "QUOTE=\"'\\"),
        device_nodes=(DeviceNode("/dev/a", "/h/dev/a", "c", 1, 0, 0o666, "rw", 0, 7), DeviceNode("/dev/b")),
        net_devices=(NetDevice("eth1", "eth0"),),
        hooks=(Hook("createContainer", "/hook", ("hook", "--x", "-", ""), ("E=1",), 3), Hook("prestart", "/h")),
        mounts=(Mount("/a", "/b", ("ro", "rbind"), "bind"), Mount("/c", "/d")),
        additional_gids=(44, 109),
    ),
)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_nvidias_files_come_back_byte_for_byte(path: Path) -> None:
    data = path.read_bytes()
    assert encode(decode(data)) == data


def test_there_are_recordings() -> None:
    assert len(RECORDED) == 4


def test_every_field_survives() -> None:
    assert decode(encode(EVERYTHING)) == EVERYTHING
    assert yaml.safe_load(encode(EVERYTHING)) == to_dict(EVERYTHING)


def test_the_runtime_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(encode(EVERYTHING))
    devices = read_spec(path)
    assert [device.qualified_name for device in devices] == ["vendor.example/class=1dev", "vendor.example/class=d:2"]


@given(st.text(max_size=40).filter(lambda text: "\0" not in text))
def test_any_text_survives(text: str) -> None:
    spec = Spec("v/c", (Device("d", ContainerEdits(env=(f"A={text}",), hooks=(Hook("prestart", "/h", (text,)),))),))
    assert decode(encode(spec)) == spec


@given(st.from_regex(r"[0-9a-fxeEYn.:+~_-]{1,12}", fullmatch=True))
def test_text_that_looks_like_a_number_stays_text(text: str) -> None:
    spec = Spec("v/c", (Device("d", ContainerEdits(hooks=(Hook("prestart", "/h", (text,)),))),))
    assert decode(encode(spec)) == spec


def test_a_wrong_spec_is_not_encoded() -> None:
    with pytest.raises(SpecError, match="at least one device"):
        encode(Spec("v/c", ()))


GOOD: dict[str, Any] = {
    "cdiVersion": "0.5.0",
    "kind": "v/c",
    "devices": [{"name": "d", "containerEdits": {"env": ["A=b"]}}],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "unknown field 'extra'"),
        ({"cdiVersion": "9.0.0"}, "9.0.0"),
        ({"cdiVersion": 0.5}, "expected text"),
        ({"kind": None}, "expected text"),
        ({"devices": {}}, "expected a list"),
        ({"devices": ["d"]}, "expected a mapping"),
        ({"devices": [{"name": "d", "containerEdits": {"env": [1]}}]}, "env[0]: expected text"),
        ({"containerEdits": {"deviceNodes": [{"path": "/a", "major": "1"}]}}, "major: expected a number"),
        ({"containerEdits": {"additionalGids": ["1"]}}, "expected a group id"),
        ({"containerEdits": {"intelRdt": {}}}, "unknown field 'intelRdt'"),
    ],
)
def test_reading_is_strict(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        decode(yaml.safe_dump({**GOOD, **change}), source="file.yaml")
    assert "file.yaml" in str(caught.value)
    assert message in str(caught.value)


def test_text_that_is_no_yaml_is_refused() -> None:
    for data in (b"\xff\xfe\xfd", b"{", b"", b"- a"):
        with pytest.raises(SpecError):
            decode(data)
