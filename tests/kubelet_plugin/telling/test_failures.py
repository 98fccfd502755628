"""The words for others: bounded, with reason, hint and whether trying again helps."""

from __future__ import annotations

from dra_driver.errors import ConfigError, DeviceInUse
from kubelet_plugin.claims.model import ClaimRef, Operation
from kubelet_plugin.telling.failures import (
    REPLY_BYTES,
    failure_event,
    metric_label,
    reply_text,
)

REF = ClaimRef("default", "c1", "u1")


def test_reply() -> None:
    error = DeviceInUse("device gpu-0 is held by claim x", hint="wait")
    assert reply_text(Operation.PREPARE, REF, error) == (
        "prepare claim default/c1:u1: DeviceInUse: device gpu-0 is held by claim x (wait)"
    )
    fatal = reply_text(Operation.PREPARE, REF, ConfigError("bad"))
    assert fatal == "prepare claim default/c1:u1: InvalidConfig: bad [trying again does not help]"


def test_event_and_label() -> None:
    event = failure_event(Operation.UNPREPARE, REF, DeviceInUse("held"))
    assert (event.type, event.reason) == ("Warning", "DeviceInUse")
    assert event.message == "cannot unprepare default/c1: held"
    assert metric_label(DeviceInUse("held")) == "DeviceInUse"
    assert metric_label(None) == ""


def test_long_texts_are_cut_but_keep_the_advice() -> None:
    error = ConfigError("ü" * 5000)
    reply = reply_text(Operation.PREPARE, REF, error)
    assert REPLY_BYTES - 1 <= len(reply.encode()) <= REPLY_BYTES
    assert reply.endswith("… [trying again does not help]")
    assert len(failure_event(Operation.PREPARE, REF, error).message.encode()) <= 1024
