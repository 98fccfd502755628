"""The spec model: lowest version by feature, and what a runtime would refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dra_driver.cdi.spec import (
    ContainerEdits,
    Device,
    DeviceNode,
    Hook,
    Mount,
    NetDevice,
    Spec,
    SpecError,
    check,
    minimum_version,
    problems,
)

ENV = ContainerEdits(env=("A=b",))
PLAIN = Spec("k8s.gpu.nvidia.com/claim", (Device("gpu", ENV),))


def with_edits(edits: ContainerEdits) -> Spec:
    return replace(PLAIN, edits=edits)


@pytest.mark.parametrize(
    ("spec", "version"),
    [
        (PLAIN, "0.3.0"),
        (with_edits(ContainerEdits(mounts=(Mount("/a", "/b", type="tmpfs"),))), "0.4.0"),
        (with_edits(ContainerEdits(device_nodes=(DeviceNode("/dev/a"),))), "0.3.0"),
        (with_edits(ContainerEdits(device_nodes=(DeviceNode("/dev/a", "/host/dev/a"),))), "0.5.0"),
        (replace(PLAIN, devices=(Device("1-gpu", ENV),)), "0.5.0"),
        (replace(PLAIN, kind="k8s.gpu.nvidia.com/claim.v1"), "0.6.0"),
        (replace(PLAIN, annotations=(("a", "b"),)), "0.6.0"),
        (replace(PLAIN, devices=(Device("gpu", ENV, (("a", "b"),)),)), "0.6.0"),
        (with_edits(ContainerEdits(additional_gids=(44,))), "0.7.0"),
        (with_edits(ContainerEdits(net_devices=(NetDevice("eth1", "eth0"),))), "1.1.0"),
    ],
)
def test_minimum_version(spec: Spec, version: str) -> None:
    assert problems(spec) == ()
    assert minimum_version(spec) == version


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        (replace(PLAIN, kind="claim"), "kind"),
        (replace(PLAIN, kind="1vendor/claim"), "kind"),
        (replace(PLAIN, kind="vendor/-claim"), "kind"),
        (replace(PLAIN, devices=()), "devices"),
        (replace(PLAIN, devices=(Device("gpu-", ENV),)), "devices[0].name"),
        (replace(PLAIN, devices=(Device("a/b", ENV),)), "devices[0].name"),
        (replace(PLAIN, devices=(Device("a", ENV), Device("a", ENV))), "devices[1].name"),
        (replace(PLAIN, devices=(Device("a", ContainerEdits()),)), "devices[0].containerEdits: empty"),
        (replace(PLAIN, devices=(Device("a", ContainerEdits(env=("novalue",))),)), "devices[0].containerEdits.env[0]"),
        (with_edits(ContainerEdits(env=("=x",))), "containerEdits.env[0]"),
        (with_edits(ContainerEdits(device_nodes=(DeviceNode("dev/a"),))), "containerEdits.deviceNodes[0].path"),
        (with_edits(ContainerEdits(device_nodes=(DeviceNode("/a", "b"),))), "containerEdits.deviceNodes[0].hostPath"),
        (with_edits(ContainerEdits(device_nodes=(DeviceNode("/a", type="x"),))), "containerEdits.deviceNodes[0].type"),
        (with_edits(ContainerEdits(device_nodes=(DeviceNode("/a", permissions="rwx"),))), "deviceNodes[0].permissions"),
        (with_edits(ContainerEdits(device_nodes=(DeviceNode("/a", major=-1),))), "deviceNodes[0]"),
        (with_edits(ContainerEdits(mounts=(Mount("a", "/b"),))), "containerEdits.mounts[0].hostPath"),
        (with_edits(ContainerEdits(mounts=(Mount("/a", ""),))), "containerEdits.mounts[0].containerPath"),
        (with_edits(ContainerEdits(hooks=(Hook("now", "/h"),))), "containerEdits.hooks[0].hookName"),
        (with_edits(ContainerEdits(hooks=(Hook("prestart", "h"),))), "containerEdits.hooks[0].path"),
        (with_edits(ContainerEdits(hooks=(Hook("prestart", "/h", env=("x",)),))), "containerEdits.hooks[0].env[0]"),
        (with_edits(ContainerEdits(net_devices=(NetDevice("eth0", ""),))), "containerEdits.netDevices[0]"),
        (with_edits(ContainerEdits(additional_gids=(0,))), "containerEdits.additionalGids[0]"),
    ],
)
def test_what_a_runtime_would_refuse_is_named(spec: Spec, place: str) -> None:
    with pytest.raises(SpecError) as caught:
        check(spec)
    assert place in str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    spec = Spec("x", (), ContainerEdits(env=("a",), mounts=(Mount("", ""),)))
    assert len(problems(spec)) == 5
