"""The supervisor's gRPC service: names and messages. ``supervisor_v1.proto`` says what each call means.

Serving::

    server.add_generic_rpc_handlers((SUPERVISOR.handler(info=..., start=..., stop=..., put_share=..., ...),))

Calling::

    status = SUPERVISOR.start.stub(channel)(supervisor_v1_pb2.StartGroupRequest(group=...), timeout=30)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import grpc

from api.mps import supervisor_v1_pb2 as pb
from api.rpc import StreamMethod, UnaryMethod, full_name

PROTOCOL: Final = 1


@dataclass(frozen=True, slots=True)
class SupervisorService:
    service: str
    info: UnaryMethod[pb.InfoRequest, pb.Info]
    start: UnaryMethod[pb.StartGroupRequest, pb.GroupStatus]
    stop: UnaryMethod[pb.StopGroupRequest, pb.StopGroupResponse]
    put_share: UnaryMethod[pb.PutShareRequest, pb.GroupStatus]
    remove_share: UnaryMethod[pb.RemoveShareRequest, pb.RemoveShareResponse]
    list_groups: UnaryMethod[pb.ListGroupsRequest, pb.Groups]
    watch: StreamMethod[pb.ListGroupsRequest, pb.Groups]

    def handler(
        self,
        *,
        info: Callable[[pb.InfoRequest, grpc.ServicerContext], pb.Info],
        start: Callable[[pb.StartGroupRequest, grpc.ServicerContext], pb.GroupStatus],
        stop: Callable[[pb.StopGroupRequest, grpc.ServicerContext], pb.StopGroupResponse],
        put_share: Callable[[pb.PutShareRequest, grpc.ServicerContext], pb.GroupStatus],
        remove_share: Callable[[pb.RemoveShareRequest, grpc.ServicerContext], pb.RemoveShareResponse],
        list_groups: Callable[[pb.ListGroupsRequest, grpc.ServicerContext], pb.Groups],
        watch: Callable[[pb.ListGroupsRequest, grpc.ServicerContext], Iterator[pb.Groups]],
    ) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            self.service,
            {
                self.info.name: self.info.handler(info),
                self.start.name: self.start.handler(start),
                self.stop.name: self.stop.handler(stop),
                self.put_share.name: self.put_share.handler(put_share),
                self.remove_share.name: self.remove_share.handler(remove_share),
                self.list_groups.name: self.list_groups.handler(list_groups),
                self.watch.name: self.watch.handler(watch),
            },
        )


_NAME = full_name(pb.DESCRIPTOR, "Supervisor")

SUPERVISOR: Final = SupervisorService(
    service=_NAME,
    info=UnaryMethod(_NAME, "GetInfo", pb.InfoRequest, pb.Info),
    start=UnaryMethod(_NAME, "StartGroup", pb.StartGroupRequest, pb.GroupStatus),
    stop=UnaryMethod(_NAME, "StopGroup", pb.StopGroupRequest, pb.StopGroupResponse),
    put_share=UnaryMethod(_NAME, "PutShare", pb.PutShareRequest, pb.GroupStatus),
    remove_share=UnaryMethod(_NAME, "RemoveShare", pb.RemoveShareRequest, pb.RemoveShareResponse),
    list_groups=UnaryMethod(_NAME, "ListGroups", pb.ListGroupsRequest, pb.Groups),
    watch=StreamMethod(_NAME, "WatchGroups", pb.ListGroupsRequest, pb.Groups),
)
