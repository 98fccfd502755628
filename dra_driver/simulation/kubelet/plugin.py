"""The kubelet's side of one registered plugin: a permanent connection, and calls in the version it chose."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from api.kubelet import dra_v1_pb2 as v1
from api.kubelet import dra_v1beta1_pb2 as v1beta1
from api.kubelet.services import DRA_V1, DRA_V1BETA1, HEALTH_V1, HEALTH_V1ALPHA1

logger = logging.getLogger(__name__)

# A connection of its own per plugin (channels share them by default), quick to come back after a loss.
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_http_proxy", 0),
)


_LAST_LOOK_SECONDS = 0.05
_ROUND_SECONDS = 0.5


class CallFailed(Exception):
    """A call ended without a usable answer; the text is the kubelet's."""


@dataclass(frozen=True, slots=True)
class ClaimName:
    """All that the kubelet tells a driver about a claim."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a prepare answer."""

    pool: str
    device: str
    requests: tuple[str, ...]
    cdi_ids: tuple[str, ...]
    share_id: str | None = None


Prepared = dict[str, tuple[Device, ...]]


class Plugin:
    """Not connected until :meth:`connect`. ``on_connection`` hears of each change, on a gRPC thread."""

    def __init__(self, driver: str, endpoint: str, service: str, on_connection: Callable[[Plugin], None]) -> None:
        self.driver = driver
        self.endpoint = endpoint
        self.service = service
        self._on_connection = on_connection
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._connected = False
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._connected

    def connect(self) -> None:
        """Open the connection now, not at the first call, so that its loss is seen."""
        with self._lock:
            if self._closed or self._connection is not None:
                return
            connection = _Connection(self.endpoint, self._changed)
            self._connection = connection
        connection.open()

    def disconnect(self) -> None:
        """Drop the connection; calls in flight are cancelled. :meth:`connect` opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._set_connected(False)

    def close(self) -> None:
        """Drop the connection for good; nobody is told."""
        self._closed = True
        self.disconnect()

    def prepare(self, claims: Sequence[ClaimName], timeout: float) -> Prepared:
        """Devices by UID. Raises :class:`CallFailed` for anything less than success for every claim."""
        method = "NodePrepareResources"
        if self.service == DRA_V1.advertised:
            request = v1.NodePrepareResourcesRequest(claims=[_message(v1.Claim, claim) for claim in claims])
            answers: Any = self._call(method, lambda channel: DRA_V1.client(channel).prepare(request, timeout))
        else:
            old = v1beta1.NodePrepareResourcesRequest(claims=[_message(v1beta1.Claim, claim) for claim in claims])
            answers = self._call(method, lambda channel: DRA_V1BETA1.client(channel).prepare(old, timeout))
        _check(method, claims, answers)
        return {uid: tuple(_device(device) for device in answer.devices) for uid, answer in answers.items()}

    def unprepare(self, claims: Sequence[ClaimName], timeout: float) -> None:
        """Raises :class:`CallFailed` for anything less than success for every claim."""
        method = "NodeUnprepareResources"
        if self.service == DRA_V1.advertised:
            request = v1.NodeUnprepareResourcesRequest(claims=[_message(v1.Claim, claim) for claim in claims])
            answers: Any = self._call(method, lambda channel: DRA_V1.client(channel).unprepare(request, timeout))
        else:
            old = v1beta1.NodeUnprepareResourcesRequest(claims=[_message(v1beta1.Claim, claim) for claim in claims])
            answers = self._call(method, lambda channel: DRA_V1BETA1.client(channel).unprepare(old, timeout))
        _check(method, claims, answers)

    def watch_health(self, service: str) -> Iterator[Any]:
        """The messages of the health stream in version ``service``. Raises :class:`CallFailed` at its end."""
        health = next(each for each in (HEALTH_V1, HEALTH_V1ALPHA1) if each.advertised == service)
        method = health.watch.name
        with self._lock:
            connection = self._connection
        if connection is None:
            raise CallFailed(f"{method}: no connection")
        try:
            yield from health.open(connection.channel)
        except grpc.RpcError as error:
            raise CallFailed(f"{method}: {_rpc_text(error)}") from error
        except ValueError as error:  # the channel was closed before the call began
            raise CallFailed(f"{method}: {error}") from error
        raise CallFailed(f"{method}: the plugin ended the stream")

    def _call(self, method: str, send: Callable[[grpc.Channel], Any]) -> Any:
        with self._lock:
            connection = self._connection
        if connection is None:
            raise CallFailed(f'{method}: rpc error: code = Unavailable desc = no connection to "unix:{self.endpoint}"')
        try:
            return send(connection.channel).claims
        except grpc.RpcError as error:
            raise CallFailed(f"{method}: {_rpc_text(error)}") from error
        except ValueError as error:  # the channel was closed before the call began
            raise CallFailed(f"{method}: rpc error: code = Canceled desc = {error}") from error

    def _changed(self, connection: _Connection, ready: bool) -> None:
        if connection is self._connection:  # else it was dropped already
            self._set_connected(ready)

    def _set_connected(self, connected: bool) -> None:
        if connected == self._connected:
            return
        self._connected = connected
        if not self._closed:
            logger.debug("connection changed", extra={"endpoint": self.endpoint, "connected": connected})
            self._on_connection(self)


class _Connection:
    """One gRPC channel that connects at once, comes back by itself, and tells when it is ready and when not."""

    def __init__(self, endpoint: str, on_change: Callable[[_Connection, bool], None]) -> None:
        self.channel = grpc.insecure_channel(f"unix:{endpoint}", options=CHANNEL_OPTIONS)
        self._on_change = on_change
        self._lock = threading.Lock()
        self._closing = False
        self._pushed_at = 0.0

    def open(self) -> None:
        with self._lock:
            if not self._closing:
                self._pushed_at = time.monotonic()
                self.channel.subscribe(self._changed, try_to_connect=True)

    def close(self) -> None:
        """Cancels calls in flight.

        grpcio's connectivity thread dies with a trace when the channel closes while it is about to look at it, so it
        gets the time for a last look: a moment, or a whole round (0.2 s) after it was asked to connect.
        """
        with self._lock:
            self._closing = True
        self.channel.unsubscribe(self._changed)
        since_push = time.monotonic() - self._pushed_at
        time.sleep(max(_LAST_LOOK_SECONDS, _ROUND_SECONDS - since_push))
        self.channel.close()

    def _changed(self, state: grpc.ChannelConnectivity) -> None:
        self._on_change(self, state is grpc.ChannelConnectivity.READY)
        if state is grpc.ChannelConnectivity.IDLE:
            self._push()

    def _push(self) -> None:
        """gRPC reconnects only when asked to, and without a try the plugin's return would go unnoticed."""
        with self._lock:
            if not self._closing:
                self._pushed_at = time.monotonic()
                self.channel.subscribe(_nobody, try_to_connect=True)
                self.channel.unsubscribe(_nobody)


def _nobody(_: grpc.ChannelConnectivity) -> None:
    """A subscriber that only carries the wish to connect."""


def _message(kind: Any, claim: ClaimName) -> Any:
    return kind(namespace=claim.namespace, name=claim.name, uid=claim.uid)


def _device(device: Any) -> Device:
    has_share = "share_id" in device.DESCRIPTOR.fields_by_name and device.HasField("share_id")
    return Device(
        pool=device.pool_name,
        device=device.device_name,
        requests=tuple(device.request_names),
        cdi_ids=tuple(device.cdi_device_ids),
        share_id=device.share_id if has_share else None,
    )


def _check(method: str, claims: Sequence[ClaimName], answers: Any) -> None:
    names = {claim.uid: claim.name for claim in claims}
    for uid, answer in answers.items():
        if uid not in names:
            raise CallFailed(f"{method} returned result for unknown claim UID {uid}")
        if answer.error:
            raise CallFailed(f"{method} failed for ResourceClaim {names[uid]}: {answer.error}")
    if len(answers) != len(names):
        raise CallFailed(f"{method} skipped {len(names) - len(answers)} ResourceClaims")


def _rpc_text(error: grpc.RpcError) -> str:
    """As grpc-go prints an error: "rpc error: code = Unavailable desc = ..."."""
    code, details = error.code(), error.details()
    word = "".join(part.capitalize() for part in code.name.split("_"))
    return f"rpc error: code = {'Canceled' if word == 'Cancelled' else word} desc = {details}"
