"""The registration service: tells the kubelet who we are, and hears whether it will have us.

GetInfo has one second (pluginmanager/operationexecutor), so its answer is made once, at construction, and the server
has threads of its own: whatever the hardware or a claim does, the answer is there. It is started last and stopped
first, because the kubelet takes the socket's presence for readiness and its removal for good-bye.

A refusal is not one message: the kubelet asks again after 0.5, 1, 2 s and so on (measured with 1.37). It is reported
through :class:`kubelet_plugin.endpoint.connection.KubeletConnection`; the caller decides when it has heard enough.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import grpc

from api.kubelet import registration_v1_pb2 as pb
from api.kubelet.services import PLUGIN_TYPE, REGISTRATION

logger = logging.getLogger(__name__)


class RegistrationListener(Protocol):
    """Who is told what the kubelet decided. Called on a gRPC thread; must not block."""

    def accepted(self) -> None: ...
    def refused(self, reason: str) -> None: ...


class RegistrationService:
    """Answers GetInfo with a constant, counts NotifyRegistrationStatus."""

    def __init__(
        self, driver: str, endpoint: Path, supported_versions: tuple[str, ...], listener: RegistrationListener
    ) -> None:
        self._info = pb.PluginInfo(
            type=PLUGIN_TYPE, name=driver, endpoint=str(endpoint), supported_versions=list(supported_versions)
        )
        self._listener = listener

    def handler(self) -> grpc.GenericRpcHandler:
        return REGISTRATION.handler(self.get_info, self.notify)

    def get_info(self, request: pb.InfoRequest, context: grpc.ServicerContext) -> pb.PluginInfo:
        return self._info

    def notify(self, request: pb.RegistrationStatus, context: grpc.ServicerContext) -> pb.RegistrationStatusResponse:
        if request.plugin_registered:
            logger.info("the kubelet registered this plugin")
            self._listener.accepted()
        else:
            logger.error(
                "the kubelet refused this plugin: %s; it will ask again",
                request.error or "no reason given",
                extra={"offered": ",".join(self._info.supported_versions)},
            )
            self._listener.refused(request.error or "no reason given")
        return pb.RegistrationStatusResponse()
