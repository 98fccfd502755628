"""A supervisor on a real socket that answers what it is told, for tests of those who call one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import grpc

from api.mps import supervisor_v1_pb2 as pb
from api.mps.services import PROTOCOL, SUPERVISOR
from dra_driver.mps.group import GroupState, GroupStatus, ShareStatus
from dra_driver.mps.wire import group_from_wire, share_from_wire, status_to_wire, statuses_to_wire


class ScriptedSupervisor:
    """Runs every group at once. ``refuse`` makes every start and stop end with that status. ``spoken``: the MPS
    protocols it tells; none is a supervisor of before there were two."""

    def __init__(self, socket: Path, *, protocol: int = PROTOCOL, spoken: Sequence[int] = (2, 3)) -> None:
        self.statuses: dict[str, GroupStatus] = {}
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self._socket = socket
        self._protocol = protocol
        self._spoken = spoken
        self._changed = threading.Condition()
        self._stopping = False
        self._server: grpc.Server | None = None

    def __enter__(self) -> ScriptedSupervisor:
        self._stopping = False
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers(
            (
                SUPERVISOR.handler(
                    info=lambda request, context: pb.Info(
                        version="0.0.1", protocol=self._protocol, mps_protocols=self._spoken
                    ),
                    start=self._start,
                    stop=self._stop,
                    put_share=self._put_share,
                    remove_share=self._remove_share,
                    list_groups=lambda request, context: statuses_to_wire(self.statuses.values()),
                    watch=self._watch,
                ),
            )
        )
        self._socket.unlink(missing_ok=True)
        self._server.add_insecure_port(f"unix:{self._socket}")
        self._server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._server is not None
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._server.stop(1).wait()

    def set(self, statuses: Sequence[GroupStatus]) -> None:
        with self._changed:
            self.statuses = {each.group.id: each for each in statuses}
            self._changed.notify_all()

    def _start(self, request: pb.StartGroupRequest, context: grpc.ServicerContext) -> pb.GroupStatus:
        if self.refuse is not None:
            context.abort(*self.refuse)
        status = GroupStatus(group_from_wire(request.group), GroupState.READY, pid=17)
        self.set([*self.statuses.values(), status])
        return status_to_wire(status)

    def _stop(self, request: pb.StopGroupRequest, context: grpc.ServicerContext) -> pb.StopGroupResponse:
        if self.refuse is not None:
            context.abort(*self.refuse)
        self.set([each for each in self.statuses.values() if each.group.id != request.id])
        return pb.StopGroupResponse()

    def _put_share(self, request: pb.PutShareRequest, context: grpc.ServicerContext) -> pb.GroupStatus:
        if self.refuse is not None:
            context.abort(*self.refuse)
        before = self.statuses[request.group_id]
        status = replace(before, shares=(*before.shares, ShareStatus(share_from_wire(request.share))))
        self.set([*self.statuses.values(), status])
        return status_to_wire(status)

    def _remove_share(self, request: pb.RemoveShareRequest, context: grpc.ServicerContext) -> pb.RemoveShareResponse:
        if self.refuse is not None:
            context.abort(*self.refuse)
        before = self.statuses[request.group_id]
        left = tuple(each for each in before.shares if each.share.name != request.name)
        self.set([*self.statuses.values(), replace(before, shares=left)])
        return pb.RemoveShareResponse()

    def _watch(self, request: pb.ListGroupsRequest, context: grpc.ServicerContext) -> Iterator[pb.Groups]:
        sent = None
        while not self._stopping and context.is_active():
            now = statuses_to_wire(self.statuses.values())
            if now != sent:
                yield now
                sent = now
            with self._changed:
                if now == statuses_to_wire(self.statuses.values()):
                    self._changed.wait(0.1)
