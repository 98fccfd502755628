"""NVIDIA's checkpoint: what it recorded is read, what we write is what it writes, and what is damaged is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kubelet_plugin.takeover.nvidia_checkpoint import (
    DeviceType,
    LiveMig,
    NvidiaCheckpoint,
    NvidiaState,
    UnknownCheckpoint,
    decode,
)
from kubelet_plugin.takeover.nvidia_writing import encode
from tests.kubelet_plugin.prepare.node import DRIVER
from tests.kubelet_plugin.takeover.nvidia import RECORDED, RECORDED_BOOT, begun, finished, of_form_v1, recorded

_MIG = "gpu-3-mig-2g20gb-14-2"
_MIG_CLAIM = "41a1589f-c8cb-4a6b-9b98-61d1db8a3dc4"


def as_form_v1(name: str, change: Callable[[dict[str, Any]], None] = lambda v1: None) -> bytes:
    """The recorded file as a release up to 25.3 would have written it."""
    v1 = json.loads(recorded(name))["v1"]
    change(v1)
    return of_form_v1(v1)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_file_verifies(name: str) -> None:
    found = decode(recorded(name), DRIVER)
    assert found.boot_id == RECORDED_BOOT
    assert not found.problems


def test_a_whole_gpu_and_its_time_slice() -> None:
    sliced, plain = sorted(decode(recorded("one-gpu-and-one-timesliced"), DRIVER).claims, key=lambda claim: claim.uid)
    assert (sliced.state, sliced.time_sliced, plain.time_sliced) == (NvidiaState.COMPLETED, True, False)
    (device,) = plain.devices
    assert (device.type, device.name, device.pool, device.requests) == (DeviceType.GPU, "gpu-0", "node-0", ("gpu",))
    assert device.gpu_uuid == "GPU-01000100-0000-0000-0000-000000000000"
    assert device.cdi_ids == (f"k8s.gpu.nvidia.com/claim={plain.uid}-gpu-0",)
    assert plain.name == "", "NVIDIA's driver drops the name"


def test_a_mig_device_and_its_instances() -> None:
    (claim,) = decode(recorded("one-dynamic-mig"), DRIVER).claims
    (device,) = claim.devices
    assert (device.type, device.name) == (DeviceType.MIG, _MIG)
    assert device.mig == LiveMig(
        "MIG-7808ffbe-6fe7-402a-87c8-fc6656eb632b", "GPU-01000100-0000-0000-0000-000000000003", 3, 4, 0
    )
    assert device.gpu_uuid == device.mig.parent_uuid


def test_begun_claims_have_a_name_and_an_allocation() -> None:
    claims = decode(recorded("with-started"), DRIVER).claims
    started = {claim.name: claim for claim in claims if claim.state is NvidiaState.STARTED}
    assert sorted(started) == ["e10", "e3", "e5", "e6", "e7", "e8", "e9"]
    assert [result.device for result in started["e3"].results] == ["gpu-99"]
    assert not started["e3"].devices


def test_the_form_of_old_releases_has_finished_claims_and_no_boot() -> None:
    found = decode(as_form_v1("one-dynamic-mig"), DRIVER)
    assert (found.boot_id, [claim.state for claim in found.claims]) == ("", [NvidiaState.COMPLETED])

    def as_in_25_3(v1: dict[str, Any]) -> None:
        mig = v1["preparedClaims"][_MIG_CLAIM]["preparedDevices"][0]["devices"][0]["mig"]
        mig["info"] = {"uuid": mig.pop("concrete")["migUUID"]}

    (claim,) = decode(as_form_v1("one-dynamic-mig", as_in_25_3), DRIVER).claims
    assert claim.devices[0].mig == LiveMig("MIG-7808ffbe-6fe7-402a-87c8-fc6656eb632b")
    assert claim.devices[0].gpu_uuid == ""


@pytest.mark.parametrize("name", ["empty", "empty-after-unprepare"])
def test_a_file_without_claims_is_written_byte_for_byte(name: str) -> None:
    assert encode((), DRIVER, RECORDED_BOOT) == recorded(name)


@pytest.mark.parametrize("name", ["one-gpu", "one-gpu-and-one-timesliced", "one-dynamic-mig"])
def test_what_is_written_differs_from_nvidias_in_what_we_do_not_keep_only(name: str) -> None:
    """Of the allocation we keep the devices; the rest is read by nobody. Keys and their order are NVIDIA's."""
    ours = encode(decode(recorded(name), DRIVER).claims, DRIVER, RECORDED_BOOT)

    def what_we_keep(form: dict[str, Any]) -> str:
        for claim in form["preparedClaims"].values():
            claim["status"]["allocation"].pop("nodeSelector", None)
            claim["status"]["allocation"]["devices"].pop("config", None)
        form.pop("checksum", None)
        return json.dumps(form)

    theirs = json.loads(recorded(name))
    for form in ("v1", "v2"):
        assert what_we_keep(json.loads(ours)[form]) == what_we_keep(theirs[form])
    assert list(json.loads(ours)) == list(theirs)


def test_what_is_written_is_read_again() -> None:
    mig = LiveMig("MIG-1", "GPU-3", 3, 4, 0)
    sliced = replace(finished("d", "gpu-4", "GPU-4"), time_sliced=True)
    claims = (begun("a", "gpu-0"), finished("b", "gpu-1", "GPU-1"), finished("c", _MIG, "GPU-3", mig), sliced)
    assert decode(encode(claims, DRIVER, "boot"), DRIVER) == NvidiaCheckpoint(claims, "boot")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not whole JSON"),
        (recorded("one-gpu")[:700], "not whole JSON"),
        (b"\xff\xfe", "not whole JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"checksum":1,"v3":{}}', "neither the form v1 nor v2, but checksum, v3: another version"),
        (recorded("one-gpu").replace(b"gpu-0", b"gpu-1"), "the checksum of its form v2 and v1 does not match"),
        (json.dumps(json.loads(recorded("one-gpu")), indent=1).encode(), "does not match"),
    ],
)
def test_a_file_that_cannot_be_relied_on_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=why):
        decode(data, DRIVER)


def test_where_only_the_old_form_verifies_it_is_used_and_said() -> None:
    v2_begins = recorded("one-gpu").index(b'"v2"')
    damaged = recorded("one-gpu")[:v2_begins] + recorded("one-gpu")[v2_begins:].replace(b"gpu-0", b"gpu-7")
    found = decode(damaged, DRIVER)
    assert [device.name for claim in found.claims for device in claim.devices] == ["gpu-0"]
    assert found.problems == ("the checksum of its form v2 does not match, and v1 is used instead",)


def test_a_claim_that_is_not_understood_costs_no_other_one() -> None:
    def strange(v1: dict[str, Any]) -> None:
        v1["preparedClaims"]["7c679cad-467a-46f9-9f0c-a09d43c64277"]["preparedDevices"] = [{"devices": [{"npu": {}}]}]

    found = decode(as_form_v1("one-gpu-and-one-timesliced", strange), DRIVER)
    assert [claim.uid for claim in found.claims] == ["e8ac5bf7-ce68-45e6-9b12-80826b6680ac"]
    assert "7c679cad-467a-46f9-9f0c-a09d43c64277 is not understood" in found.problems[0]


@pytest.mark.parametrize("key", ["Requests", "PoolName", "DeviceName", "CDIDeviceIDs", "ShareID"])
def test_a_claim_with_a_number_where_text_belongs_is_not_understood(key: str) -> None:
    """A device's name of another type ended the plugin's start; others damaged its own checkpoint."""

    def strange(v1: dict[str, Any]) -> None:
        claim = v1["preparedClaims"]["7c679cad-467a-46f9-9f0c-a09d43c64277"]
        claim["preparedDevices"][0]["devices"][0]["gpu"]["device"][key] = [5] if key.endswith("s") else 5

    found = decode(as_form_v1("one-gpu-and-one-timesliced", strange), DRIVER)
    assert [claim.uid for claim in found.claims] == ["e8ac5bf7-ce68-45e6-9b12-80826b6680ac"]
    assert found.problems == (
        "claim 7c679cad-467a-46f9-9f0c-a09d43c64277 is not understood: TypeError 5 where text belongs",
    )


def test_fields_of_a_later_version_do_no_harm() -> None:
    def later(v1: dict[str, Any]) -> None:
        v1["preparedClaims"][_MIG_CLAIM]["reservedBy"] = {"new": True}

    assert len(decode(as_form_v1("one-dynamic-mig", later), DRIVER).claims) == 1
