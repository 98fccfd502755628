"""Services as bound by ``api.kubelet.services``: names on the wire, and calls over a real unix socket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from api.kubelet import (
    dra_v1_pb2,
    dra_v1beta1_pb2,
    health_v1_pb2,
    health_v1alpha1_pb2,
    registration_v1_pb2,
)
from api.kubelet.services import DRA_V1, DRA_V1BETA1, HEALTH_V1, HEALTH_V1ALPHA1, PLUGIN_TYPE, REGISTRATION

# Written out: these strings are the contract with the kubelet.
PATHS = {
    REGISTRATION.get_info.path: "/pluginregistration.Registration/GetInfo",
    REGISTRATION.notify.path: "/pluginregistration.Registration/NotifyRegistrationStatus",
    DRA_V1.prepare.path: "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
    DRA_V1.unprepare.path: "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources",
    DRA_V1BETA1.prepare.path: "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources",
    DRA_V1BETA1.unprepare.path: "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources",
    HEALTH_V1.watch.path: "/v1.DRAResourceHealth/NodeWatchResources",
    HEALTH_V1ALPHA1.watch.path: "/v1alpha1.DRAResourceHealth/NodeWatchResources",
}
TIMEOUT = 5.0


@pytest.mark.parametrize(("ours", "theirs"), PATHS.items())
def test_method_names(ours: str, theirs: str) -> None:
    assert ours == theirs


def test_advertised_names() -> None:
    advertised = [service.advertised for service in (DRA_V1, DRA_V1BETA1, HEALTH_V1, HEALTH_V1ALPHA1)]
    assert advertised == ["v1.DRAPlugin", "v1beta1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"]
    assert PLUGIN_TYPE == "DRAPlugin"


def get_info(_: registration_v1_pb2.InfoRequest, __: grpc.ServicerContext) -> registration_v1_pb2.PluginInfo:
    return registration_v1_pb2.PluginInfo(type=PLUGIN_TYPE, name="gpu.nvidia.com", supported_versions=["v1.DRAPlugin"])


def notify(
    request: registration_v1_pb2.RegistrationStatus, context: grpc.ServicerContext
) -> registration_v1_pb2.RegistrationStatusResponse:
    if not request.plugin_registered:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.error)
    return registration_v1_pb2.RegistrationStatusResponse()


def prepare_v1(
    request: dra_v1_pb2.NodePrepareResourcesRequest, _: grpc.ServicerContext
) -> dra_v1_pb2.NodePrepareResourcesResponse:
    device = dra_v1_pb2.Device(device_name="gpu-0", share_id="s")
    return dra_v1_pb2.NodePrepareResourcesResponse(
        claims={claim.uid: dra_v1_pb2.NodePrepareResourceResponse(devices=[device]) for claim in request.claims}
    )


def unprepare_v1(
    request: dra_v1_pb2.NodeUnprepareResourcesRequest, _: grpc.ServicerContext
) -> dra_v1_pb2.NodeUnprepareResourcesResponse:
    return dra_v1_pb2.NodeUnprepareResourcesResponse(
        claims={claim.uid: dra_v1_pb2.NodeUnprepareResourceResponse() for claim in request.claims}
    )


def prepare_v1beta1(
    request: dra_v1beta1_pb2.NodePrepareResourcesRequest, _: grpc.ServicerContext
) -> dra_v1beta1_pb2.NodePrepareResourcesResponse:
    failed = dra_v1beta1_pb2.NodePrepareResourceResponse(error="beta")
    return dra_v1beta1_pb2.NodePrepareResourcesResponse(claims={claim.uid: failed for claim in request.claims})


def unprepare_v1beta1(
    _: dra_v1beta1_pb2.NodeUnprepareResourcesRequest, __: grpc.ServicerContext
) -> dra_v1beta1_pb2.NodeUnprepareResourcesResponse:
    return dra_v1beta1_pb2.NodeUnprepareResourcesResponse()


def watch_v1(
    _: health_v1_pb2.NodeWatchResourcesRequest, __: grpc.ServicerContext
) -> Iterator[health_v1_pb2.NodeWatchResourcesResponse]:
    for state in (health_v1_pb2.HEALTHY, health_v1_pb2.UNHEALTHY):
        yield health_v1_pb2.NodeWatchResourcesResponse(devices=[health_v1_pb2.DeviceHealth(health=state)])


def watch_v1alpha1(
    _: health_v1alpha1_pb2.NodeWatchResourcesRequest, __: grpc.ServicerContext
) -> Iterator[health_v1alpha1_pb2.NodeWatchResourcesResponse]:
    yield health_v1alpha1_pb2.NodeWatchResourcesResponse()


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[grpc.Channel]:
    """A channel to a server with every service but v1alpha1 health."""
    server = grpc.server(futures.ThreadPoolExecutor(4, thread_name_prefix="test-dra"))
    server.add_generic_rpc_handlers(
        (
            REGISTRATION.handler(get_info, notify),
            DRA_V1.handler(prepare_v1, unprepare_v1),
            DRA_V1BETA1.handler(prepare_v1beta1, unprepare_v1beta1),
            HEALTH_V1.handler(watch_v1),
        )
    )
    address = f"unix:{tmp_path / 'dra.sock'}"
    server.add_insecure_port(address)
    server.start()
    with grpc.insecure_channel(address) as opened:
        yield opened
    server.stop(grace=None).wait(TIMEOUT)


def test_registration(channel: grpc.Channel) -> None:
    client = REGISTRATION.client(channel)
    assert client.get_info(TIMEOUT).name == "gpu.nvidia.com"
    client.notify(registration_v1_pb2.RegistrationStatus(plugin_registered=True), TIMEOUT)
    with pytest.raises(grpc.RpcError, match="unknown version"):
        client.notify(registration_v1_pb2.RegistrationStatus(error="unknown version"), TIMEOUT)


def test_dra_v1_and_v1beta1_live_on_one_socket(channel: grpc.Channel) -> None:
    asked = dra_v1_pb2.NodePrepareResourcesRequest(claims=[dra_v1_pb2.Claim(uid="u")])
    assert DRA_V1.client(channel).prepare(asked, TIMEOUT).claims["u"].devices[0].share_id == "s"
    undo = dra_v1_pb2.NodeUnprepareResourcesRequest(claims=[dra_v1_pb2.Claim(uid="u")])
    assert list(DRA_V1.client(channel).unprepare(undo, TIMEOUT).claims) == ["u"]
    beta = dra_v1beta1_pb2.NodePrepareResourcesRequest(claims=[dra_v1beta1_pb2.Claim(uid="u")])
    assert DRA_V1BETA1.client(channel).prepare(beta, TIMEOUT).claims["u"].error == "beta"
    assert not DRA_V1BETA1.client(channel).unprepare(dra_v1beta1_pb2.NodeUnprepareResourcesRequest(), TIMEOUT).claims


def test_health_is_a_stream(channel: grpc.Channel) -> None:
    states = [answer.devices[0].health for answer in HEALTH_V1.open(channel)]
    assert states == [health_v1_pb2.HEALTHY, health_v1_pb2.UNHEALTHY]


def test_a_service_that_is_not_served_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        next(iter(HEALTH_V1ALPHA1.open(channel)))


def test_v1alpha1_health_is_served_when_bound(tmp_path: Path) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1, thread_name_prefix="test-dra"))
    server.add_generic_rpc_handlers((HEALTH_V1ALPHA1.handler(watch_v1alpha1),))
    address = f"unix:{tmp_path / 'dra.sock'}"
    server.add_insecure_port(address)
    server.start()
    with grpc.insecure_channel(address) as opened:
        assert len(list(HEALTH_V1ALPHA1.open(opened))) == 1
    server.stop(grace=None).wait(TIMEOUT)
