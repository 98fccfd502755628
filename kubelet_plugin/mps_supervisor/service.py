"""The supervisor's gRPC service (``api/mps``): messages to groups, errors to statuses.

What protects it: the socket is 0600 in a folder of root's that is 0700, so the kernel lets nobody else connect. Beyond
that each call looks at the credentials of all who are connected (SO_PEERCRED) and serves nobody while a stranger is:
Python's gRPC does not tell which connection a call came by.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc

from api.mps import supervisor_v1_pb2 as pb
from api.mps.services import PROTOCOL, SUPERVISOR
from dra_driver.errors import DriverError, HardwareUnavailable, InternalError
from dra_driver.mps import errors
from dra_driver.mps.wire import group_from_wire, share_from_wire, status_to_wire, statuses_to_wire
from dra_driver.version import __version__
from kubelet_plugin.mps_supervisor.share_calls import ShareCalls
from kubelet_plugin.mps_supervisor.supervisor import Supervisor
from kubelet_plugin.node.own_threads import OwnThreads
from kubelet_plugin.node.peers import peers

logger = logging.getLogger(__name__)

THREADS = 64  # a call keeps one while its daemon starts or ends; there are at most 8 GPUs of 7 MIG devices
MOST_WATCHES = 8

_LOOK_SECONDS = 10.0  # how long a watch sleeps; a change wakes it
_STATUS = {
    errors.GroupRefused: grpc.StatusCode.INVALID_ARGUMENT,
    errors.GroupDiffers: grpc.StatusCode.FAILED_PRECONDITION,
    errors.GroupTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.SupervisorUnavailable: grpc.StatusCode.UNAVAILABLE,
    HardwareUnavailable: grpc.StatusCode.UNAVAILABLE,
}


class SupervisorService:
    def __init__(self, supervisor: Supervisor, shares: ShareCalls, socket: Path) -> None:
        self._supervisor = supervisor
        self._shares = shares
        self._socket = socket
        self._watches = 0
        self._stopping = False
        # One thread more than watches: it tells a surplus caller to go. Threads are made when they are needed.
        self._threads = futures.ThreadPoolExecutor(MOST_WATCHES + 1, thread_name_prefix="mps-watch")

    def handler(self) -> grpc.GenericRpcHandler:
        return SUPERVISOR.handler(
            info=self.info,
            start=self.start,
            stop=self.stop,
            put_share=self.put_share,
            remove_share=self.remove_share,
            list_groups=self.list_groups,
            watch=OwnThreads(self._threads, self.watch),
        )

    def end_watches(self) -> None:
        """And every one that comes later."""
        self._stopping = True
        self._supervisor.wake()

    def close(self) -> None:
        """Let the threads go; not before the server has stopped (``health.service`` says why)."""
        self._threads.shutdown(wait=False)

    def info(self, _request: pb.InfoRequest, context: grpc.ServicerContext) -> pb.Info:
        self._check_peers(context)
        return pb.Info(version=__version__, protocol=PROTOCOL, mps_protocols=self._supervisor.protocols())

    def start(self, request: pb.StartGroupRequest, context: grpc.ServicerContext) -> pb.GroupStatus:
        self._check_peers(context)
        try:
            return status_to_wire(self._supervisor.start(group_from_wire(request.group)))
        except Exception as error:  # noqa: BLE001 - the boundary of a call: every error becomes its status
            return _abort(context, error)

    def stop(self, request: pb.StopGroupRequest, context: grpc.ServicerContext) -> pb.StopGroupResponse:
        self._check_peers(context)
        try:
            self._supervisor.stop(request.id)
        except Exception as error:  # noqa: BLE001 - as above
            _abort(context, error)
        return pb.StopGroupResponse()

    def put_share(self, request: pb.PutShareRequest, context: grpc.ServicerContext) -> pb.GroupStatus:
        self._check_peers(context)
        try:
            return status_to_wire(self._shares.put(request.group_id, share_from_wire(request.share)))
        except Exception as error:  # noqa: BLE001 - as above
            return _abort(context, error)

    def remove_share(self, request: pb.RemoveShareRequest, context: grpc.ServicerContext) -> pb.RemoveShareResponse:
        self._check_peers(context)
        try:
            self._shares.remove(request.group_id, request.name)
        except Exception as error:  # noqa: BLE001 - as above
            _abort(context, error)
        return pb.RemoveShareResponse()

    def list_groups(self, _request: pb.ListGroupsRequest, context: grpc.ServicerContext) -> pb.Groups:
        self._check_peers(context)
        return self._list()

    def watch(self, _request: pb.ListGroupsRequest, context: grpc.ServicerContext) -> Iterator[pb.Groups]:
        self._check_peers(context)
        if self._watches >= MOST_WATCHES:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHES} watches are open already")
        self._watches += 1
        try:
            # Called too when the caller has gone: the thread that waits below is free at once.
            if context.add_callback(self._supervisor.wake):
                yield from self._changes(context)
        finally:
            self._watches -= 1

    def _changes(self, context: grpc.ServicerContext) -> Iterator[pb.Groups]:
        sent: pb.Groups | None = None
        while True:
            seen = self._supervisor.changes  # before the list: what changes after it must not be slept over
            if self._stopping or not context.is_active():
                return
            groups = self._list()
            if groups != sent:
                yield groups
                sent = groups
            self._supervisor.wait_for_change(seen, _LOOK_SECONDS)

    def _list(self) -> pb.Groups:
        return statuses_to_wire(running.status for running in self._supervisor.groups())

    def _check_peers(self, context: grpc.ServicerContext) -> None:
        allowed = (0, os.getuid())
        strangers = {peer.uid for peer in peers(self._socket) or () if peer.uid not in allowed}
        if strangers:
            logger.error("refusing all calls: user %s is connected to %s", strangers, self._socket)
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "somebody who is not root is connected")


def _abort(context: grpc.ServicerContext, error: Exception) -> pb.GroupStatus:
    """Ends the call; it does not return."""
    if not isinstance(error, DriverError):
        logger.error("a call broke", exc_info=error)
        error = InternalError.of(error)
    code = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    context.abort(code, str(error))
    raise AssertionError("abort raises")
