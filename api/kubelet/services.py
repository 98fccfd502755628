"""The gRPC services between kubelet and driver: names, messages, and typed ways to serve and to call them.

Server and (fake) kubelet both use these objects, so a method's name is written once. Three names of one service must
not be mixed up: the full name on the wire (``k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin``), the name that a driver
advertises in PluginInfo (``v1.DRAPlugin``), and the plugin type (``DRAPlugin``). Source: the kubelet's pkg/apis
(pluginregistration, dra, dra-health) and cm/dra/plugin.

Serving::

    server.add_generic_rpc_handlers((DRA_V1.handler(prepare, unprepare), REGISTRATION.handler(get_info, notify)))

Calling::

    client = DRA_V1.client(channel)
    reply = client.prepare(dra_v1_pb2.NodePrepareResourcesRequest(claims=[...]), timeout=45)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from api.kubelet import (
    dra_v1_pb2,
    dra_v1beta1_pb2,
    health_v1_pb2,
    health_v1alpha1_pb2,
    registration_v1_pb2,
)
from api.rpc import Request, Response, StreamMethod, UnaryMethod, full_name

if TYPE_CHECKING:
    from grpc import _CallIterator

PLUGIN_TYPE = "DRAPlugin"  # PluginInfo.type of every DRA driver

PrepareRequest = TypeVar("PrepareRequest", bound=Message)
PrepareResponse = TypeVar("PrepareResponse", bound=Message)
UnprepareRequest = TypeVar("UnprepareRequest", bound=Message)
UnprepareResponse = TypeVar("UnprepareResponse", bound=Message)


@dataclass(frozen=True, slots=True)
class RegistrationClient:
    """Stands where the kubelet's plugin manager stands. Errors are ``grpc.RpcError``."""

    channel: grpc.Channel

    def get_info(self, timeout: float) -> registration_v1_pb2.PluginInfo:
        stub = REGISTRATION.get_info.stub(self.channel)
        return stub(registration_v1_pb2.InfoRequest(), timeout=timeout)

    def notify(self, status: registration_v1_pb2.RegistrationStatus, timeout: float) -> None:
        REGISTRATION.notify.stub(self.channel)(status, timeout=timeout)


@dataclass(frozen=True, slots=True)
class RegistrationService:
    """pluginregistration.Registration, on a socket of its own in the kubelet's registry folder."""

    service: str
    get_info: UnaryMethod[registration_v1_pb2.InfoRequest, registration_v1_pb2.PluginInfo]
    notify: UnaryMethod[registration_v1_pb2.RegistrationStatus, registration_v1_pb2.RegistrationStatusResponse]

    def handler(
        self,
        get_info: Callable[[registration_v1_pb2.InfoRequest, grpc.ServicerContext], registration_v1_pb2.PluginInfo],
        notify: Callable[
            [registration_v1_pb2.RegistrationStatus, grpc.ServicerContext],
            registration_v1_pb2.RegistrationStatusResponse,
        ],
    ) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            self.service,
            {self.get_info.name: self.get_info.handler(get_info), self.notify.name: self.notify.handler(notify)},
        )

    def client(self, channel: grpc.Channel) -> RegistrationClient:
        return RegistrationClient(channel)


@dataclass(frozen=True, slots=True)
class DraClient(Generic[PrepareRequest, PrepareResponse, UnprepareRequest, UnprepareResponse]):
    """Stands where the kubelet's DRA manager stands. Errors are ``grpc.RpcError``."""

    channel: grpc.Channel
    service: DraService[PrepareRequest, PrepareResponse, UnprepareRequest, UnprepareResponse]

    def prepare(self, request: PrepareRequest, timeout: float) -> PrepareResponse:
        return self.service.prepare.stub(self.channel)(request, timeout=timeout)

    def unprepare(self, request: UnprepareRequest, timeout: float) -> UnprepareResponse:
        return self.service.unprepare.stub(self.channel)(request, timeout=timeout)


@dataclass(frozen=True, slots=True)
class DraService(Generic[PrepareRequest, PrepareResponse, UnprepareRequest, UnprepareResponse]):
    """One version of the DRAPlugin service. ``advertised`` is what goes into PluginInfo.supported_versions."""

    advertised: str
    service: str
    prepare: UnaryMethod[PrepareRequest, PrepareResponse]
    unprepare: UnaryMethod[UnprepareRequest, UnprepareResponse]

    def handler(
        self,
        prepare: Callable[[PrepareRequest, grpc.ServicerContext], PrepareResponse],
        unprepare: Callable[[UnprepareRequest, grpc.ServicerContext], UnprepareResponse],
    ) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            self.service,
            {
                self.prepare.name: self.prepare.handler(prepare),
                self.unprepare.name: self.unprepare.handler(unprepare),
            },
        )

    def client(
        self, channel: grpc.Channel
    ) -> DraClient[PrepareRequest, PrepareResponse, UnprepareRequest, UnprepareResponse]:
        return DraClient(channel, self)


@dataclass(frozen=True, slots=True)
class HealthService(Generic[Request, Response]):
    """One version of the DRAResourceHealth service. Each answer is the complete list of devices."""

    advertised: str
    service: str
    watch: StreamMethod[Request, Response]

    def handler(self, watch: Callable[[Request, grpc.ServicerContext], Iterator[Response]]) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(self.service, {self.watch.name: self.watch.handler(watch)})

    def open(self, channel: grpc.Channel) -> _CallIterator[Response]:
        """Opens the stream; iterate over it, ``cancel()`` ends it."""
        return self.watch.stub(channel)(self.watch.request())


_REGISTRATION = full_name(registration_v1_pb2.DESCRIPTOR, "Registration")
_DRA_V1 = full_name(dra_v1_pb2.DESCRIPTOR, "DRAPlugin")
_DRA_V1BETA1 = full_name(dra_v1beta1_pb2.DESCRIPTOR, "DRAPlugin")
_HEALTH_V1 = full_name(health_v1_pb2.DESCRIPTOR, "DRAResourceHealth")
_HEALTH_V1ALPHA1 = full_name(health_v1alpha1_pb2.DESCRIPTOR, "DRAResourceHealth")

REGISTRATION = RegistrationService(
    service=_REGISTRATION,
    get_info=UnaryMethod(_REGISTRATION, "GetInfo", registration_v1_pb2.InfoRequest, registration_v1_pb2.PluginInfo),
    notify=UnaryMethod(
        _REGISTRATION,
        "NotifyRegistrationStatus",
        registration_v1_pb2.RegistrationStatus,
        registration_v1_pb2.RegistrationStatusResponse,
    ),
)

DRA_V1 = DraService(
    advertised="v1.DRAPlugin",
    service=_DRA_V1,
    prepare=UnaryMethod(
        _DRA_V1,
        "NodePrepareResources",
        dra_v1_pb2.NodePrepareResourcesRequest,
        dra_v1_pb2.NodePrepareResourcesResponse,
    ),
    unprepare=UnaryMethod(
        _DRA_V1,
        "NodeUnprepareResources",
        dra_v1_pb2.NodeUnprepareResourcesRequest,
        dra_v1_pb2.NodeUnprepareResourcesResponse,
    ),
)

DRA_V1BETA1 = DraService(
    advertised="v1beta1.DRAPlugin",
    service=_DRA_V1BETA1,
    prepare=UnaryMethod(
        _DRA_V1BETA1,
        "NodePrepareResources",
        dra_v1beta1_pb2.NodePrepareResourcesRequest,
        dra_v1beta1_pb2.NodePrepareResourcesResponse,
    ),
    unprepare=UnaryMethod(
        _DRA_V1BETA1,
        "NodeUnprepareResources",
        dra_v1beta1_pb2.NodeUnprepareResourcesRequest,
        dra_v1beta1_pb2.NodeUnprepareResourcesResponse,
    ),
)

HEALTH_V1 = HealthService(
    advertised="v1.DRAResourceHealth",
    service=_HEALTH_V1,
    watch=StreamMethod(
        _HEALTH_V1,
        "NodeWatchResources",
        health_v1_pb2.NodeWatchResourcesRequest,
        health_v1_pb2.NodeWatchResourcesResponse,
    ),
)

HEALTH_V1ALPHA1 = HealthService(
    advertised="v1alpha1.DRAResourceHealth",
    service=_HEALTH_V1ALPHA1,
    watch=StreamMethod(
        _HEALTH_V1ALPHA1,
        "NodeWatchResources",
        health_v1alpha1_pb2.NodeWatchResourcesRequest,
        health_v1alpha1_pb2.NodeWatchResourcesResponse,
    ),
)
