"""The messages on the wire are the kubelet's: field numbers and types as its .proto files have them, written out here."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from api.kubelet import (
    dra_v1_pb2,
    dra_v1beta1_pb2,
    health_v1_pb2,
    health_v1alpha1_pb2,
    registration_v1_pb2,
)
from tests.api.kubelet.wire import message

CLAIM = message((1, "ns"), (2, "uid-1"), (3, "claim"))
DEVICE = message((1, "a"), (1, "b"), (2, "pool"), (3, "gpu-0"), (4, "k8s.gpu.nvidia.com/claim=x"))
PREPARED = message((1, DEVICE))
UNPREPARED = message((1, "in use"))
HEALTH = message((1, message((1, "pool"), (2, "gpu-0"))), (2, 2), (3, 1_700_000_000), (4, 30), (5, "XID 79"))


def device(module: Any, **more: Any) -> Any:
    return module.Device(
        request_names=["a", "b"],
        pool_name="pool",
        device_name="gpu-0",
        cdi_device_ids=["k8s.gpu.nvidia.com/claim=x"],
        **more,
    )


def dra_cases(module: Any) -> list[tuple[Message, bytes]]:
    claim = module.Claim(namespace="ns", uid="uid-1", name="claim")
    prepared = module.NodePrepareResourceResponse(devices=[device(module)])
    return [
        (claim, CLAIM),
        (module.NodePrepareResourcesRequest(claims=[claim]), message((1, CLAIM))),
        (device(module), DEVICE),
        (module.NodePrepareResourceResponse(devices=[device(module)], error="e"), PREPARED + message((2, "e"))),
        (
            module.NodePrepareResourcesResponse(claims={"uid-1": prepared}),
            message((1, message((1, "uid-1"), (2, PREPARED)))),
        ),
        (module.NodeUnprepareResourcesRequest(claims=[claim]), message((1, CLAIM))),
        (
            module.NodeUnprepareResourcesResponse(
                claims={"uid-1": module.NodeUnprepareResourceResponse(error="in use")}
            ),
            message((1, message((1, "uid-1"), (2, UNPREPARED)))),
        ),
    ]


def health_cases(module: Any) -> list[tuple[Message, bytes]]:
    health = module.DeviceHealth(
        device=module.DeviceIdentifier(pool_name="pool", device_name="gpu-0"),
        health=module.UNHEALTHY,
        last_updated_time=1_700_000_000,
        health_check_timeout_seconds=30,
        message="XID 79",
    )
    return [
        (module.NodeWatchResourcesRequest(), b""),
        (health, HEALTH),
        (module.NodeWatchResourcesResponse(devices=[health]), message((1, HEALTH))),
        (module.DeviceHealth(health=module.HEALTHY), message((2, 1))),
        (module.DeviceHealth(health=module.UNKNOWN), b""),
    ]


CASES: list[tuple[Message, bytes]] = [
    (registration_v1_pb2.InfoRequest(), b""),
    (
        registration_v1_pb2.PluginInfo(
            type="DRAPlugin",
            name="gpu.nvidia.com",
            endpoint="/run/dra.sock",
            supported_versions=["v1.DRAPlugin", "v1beta1.DRAPlugin"],
        ),
        message(
            (1, "DRAPlugin"), (2, "gpu.nvidia.com"), (3, "/run/dra.sock"), (4, "v1.DRAPlugin"), (4, "v1beta1.DRAPlugin")
        ),
    ),
    (registration_v1_pb2.RegistrationStatus(plugin_registered=True, error="no"), message((1, True), (2, "no"))),
    (registration_v1_pb2.RegistrationStatusResponse(), b""),
    *dra_cases(dra_v1_pb2),
    *dra_cases(dra_v1beta1_pb2),
    (device(dra_v1_pb2, share_id="share"), DEVICE + message((5, "share"))),
    *health_cases(health_v1_pb2),
    *health_cases(health_v1alpha1_pb2),
]


@pytest.mark.parametrize(("value", "wire"), CASES, ids=lambda case: type(case).__name__)
def test_message_is_encoded_and_decoded_by_the_kubelets_numbers(value: Message, wire: bytes) -> None:
    assert value.SerializeToString(deterministic=True) == wire
    assert type(value).FromString(wire) == value


def test_share_id_has_presence_so_that_no_share_differs_from_an_empty_one() -> None:
    assert not dra_v1_pb2.Device().HasField("share_id")
    assert dra_v1_pb2.Device(share_id="").SerializeToString() == message((5, ""))


def test_v1beta1_has_no_shares_and_passes_over_one() -> None:
    assert "share_id" not in dra_v1beta1_pb2.Device.DESCRIPTOR.fields_by_name
    assert dra_v1beta1_pb2.Device.FromString(DEVICE + message((5, "share"))).device_name == "gpu-0"


def test_a_negative_health_timeout_is_an_int64() -> None:
    wire = message((4, -1))
    assert health_v1_pb2.DeviceHealth.FromString(wire).health_check_timeout_seconds == -1
