"""gRPC methods with their types: a method's name is written once, for those who serve it and those who call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class UnaryMethod(Generic[Request, Response]):
    """One request, one response."""

    service: str
    name: str
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        """The name on the wire: "/service/method"."""
        return f"/{self.service}/{self.name}"

    def handler(
        self, serve: Callable[[Request, grpc.ServicerContext], Response]
    ) -> grpc.RpcMethodHandler[Request, Response]:
        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=self.request.FromString,
            response_serializer=self.response.SerializeToString,
        )

    def stub(self, channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable[Request, Response]:
        return channel.unary_unary(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )


@dataclass(frozen=True, slots=True)
class StreamMethod(Generic[Request, Response]):
    """One request, a stream of responses until either side ends it."""

    service: str
    name: str
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        """The name on the wire: "/service/method"."""
        return f"/{self.service}/{self.name}"

    def handler(
        self, serve: Callable[[Request, grpc.ServicerContext], Iterator[Response]]
    ) -> grpc.RpcMethodHandler[Request, Response]:
        return grpc.unary_stream_rpc_method_handler(
            serve,
            request_deserializer=self.request.FromString,
            response_serializer=self.response.SerializeToString,
        )

    def stub(self, channel: grpc.Channel) -> grpc.UnaryStreamMultiCallable[Request, Response]:
        return channel.unary_stream(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )


def full_name(file: FileDescriptor, service: str) -> str:
    """The service's full name from the generated file, so that .proto and this module cannot disagree."""
    name: str = file.services_by_name[service].full_name
    return name
