"""The MPS supervisor as others see it: groups started, stopped, listed and watched. Every call has an end.

Each call has a channel of its own. Opening one on a unix socket takes about a millisecond, and a supervisor that has
just come back is reached at once: a channel that is kept waits with growing pauses after it has lost its server. Before
anything else the supervisor says which protocol it speaks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import grpc

from api.mps import supervisor_v1_pb2 as pb
from api.mps.services import PROTOCOL, SUPERVISOR
from dra_driver.kube.backoff import Backoff
from dra_driver.mps import errors
from dra_driver.mps.group import LEGACY, GroupStatus, MpsGroup, MpsShare
from dra_driver.mps.wire import group_to_wire, share_to_wire, status_from_wire, statuses_from_wire
from dra_driver.observability.loops import Loop

logger = logging.getLogger(__name__)

Listener = Callable[[tuple[GroupStatus, ...]], None]
"""Told the complete list, on the watch's thread: at once when there is a connection, and after each change."""

SWITCH_ON = (
    "switch the MPS supervisor on in the chart's values: mpsSupervisor.enabled=true; if it is on, see whether "
    "mpsSupervisor.nodeSelector or mpsSupervisor.tolerations keep its pod off this node"
)

_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
_ANSWER_SECONDS = 2.0
# Longer than the supervisor's own limits, so that it is the one who says what was not done in time: what hangs is
# killed, and that has its time too.
_GRACE_SECONDS = 20.0
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.2, 5.0
_CONNECT_LIMIT_SECONDS = 10.0
_NO_SOCKET_SECONDS = 2.0


class Stream(Protocol):
    """The lists as they come."""

    def __next__(self) -> pb.Groups: ...
    def __iter__(self) -> Iterator[pb.Groups]: ...
    def cancel(self) -> object: ...


class SupervisorClient:
    """Stateless and thread-safe. ``socket``: :func:`dra_driver.mps.group.socket_of`. Errors are those of
    ``dra_driver.mps.errors``."""

    def __init__(self, socket: Path, *, start_seconds: float = 30.0, stop_seconds: float = 30.0) -> None:
        """``start_seconds``: ``spec.mps.startTimeout``, ``stop_seconds``: that too, as a stop may wait for a start."""
        self._socket = socket
        self._start_seconds = start_seconds + _GRACE_SECONDS
        self._stop_seconds = stop_seconds + _GRACE_SECONDS

    def start(self, group: MpsGroup) -> GroupStatus:
        """Returns when the group's daemon has answered a command; at once when the same group runs."""
        with self._channel(f"start of MPS group {group.id}", group.protocol) as channel:
            request = pb.StartGroupRequest(group=group_to_wire(group))
            return status_from_wire(SUPERVISOR.start.stub(channel)(request, timeout=self._start_seconds))

    def stop(self, group_id: str) -> None:
        """Returns when nothing of the group is left. An id that nobody knows is fine."""
        with self._channel(f"stop of MPS group {group_id}") as channel:
            SUPERVISOR.stop.stub(channel)(pb.StopGroupRequest(id=group_id), timeout=self._stop_seconds)

    def put_share(self, group_id: str, share: MpsShare) -> GroupStatus:
        """Returns when the share's limits are in force: they were read back, and the server is alive and has the
        group's devices. Other limits under the same name are GroupDiffers."""
        with self._channel(f"share {share.name} of MPS group {group_id}") as channel:
            request = pb.PutShareRequest(group_id=group_id, share=share_to_wire(share))
            return status_from_wire(SUPERVISOR.put_share.stub(channel)(request, timeout=self._start_seconds))

    def remove_share(self, group_id: str, name: str) -> None:
        """Returns when nothing of the share is left. A name or a group that nobody knows is fine."""
        with self._channel(f"removal of share {name} of MPS group {group_id}") as channel:
            request = pb.RemoveShareRequest(group_id=group_id, name=name)
            SUPERVISOR.remove_share.stub(channel)(request, timeout=self._stop_seconds)

    def protocols(self) -> tuple[int, ...]:
        """What the node's MPS programs speak; only LEGACY with a supervisor that knows no other."""
        with self._served("question for MPS protocols") as (_channel, info):
            return tuple(info.mps_protocols) or (LEGACY,)

    def groups(self) -> tuple[GroupStatus, ...]:
        with self._channel("list of MPS groups") as channel:
            return statuses_from_wire(
                SUPERVISOR.list_groups.stub(channel)(pb.ListGroupsRequest(), timeout=_ANSWER_SECONDS)
            )

    @property
    def absence(self) -> str:
        """That there is no supervisor, for people; empty where one serves, or served, the socket."""
        return "" if self._socket.exists() else f"no MPS supervisor serves this node, there is no {self._socket}"

    def watch(self, listener: Listener) -> GroupWatch:
        """A watch that is not started yet."""
        return GroupWatch(self, listener)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Until cancelled; for :class:`GroupWatch`."""
        with self._channel("watch of MPS groups") as channel:
            yield SUPERVISOR.watch.stub(channel)(pb.ListGroupsRequest())

    @contextmanager
    def _channel(self, what: str, protocol: int = LEGACY) -> Iterator[grpc.Channel]:
        """``protocol``: of MPS, that the supervisor must know. One that does not would overlook that it was asked for,
        and give a group without any limits."""
        with self._served(what) as (channel, info):
            if protocol != LEGACY and not info.mps_protocols:
                raise errors.SupervisorVersion(
                    f"{what} failed: the MPS supervisor is of version {info.version or 'unknown'}, which does not know "
                    f"MPS protocol {protocol}",
                    hint="plugin and supervisor must be of one release; during an upgrade it is tried again",
                )
            yield channel

    @contextmanager
    def _served(self, what: str) -> Iterator[tuple[grpc.Channel, pb.Info]]:
        """A channel to a supervisor of our protocol; what goes wrong on it is told in our errors."""
        if absence := self.absence:
            raise errors.SupervisorUnavailable(f"{what} failed: {absence}", hint=SWITCH_ON)
        with grpc.insecure_channel(f"unix:{self._socket}", options=_OPTIONS) as channel:
            serves = False
            try:
                info = SUPERVISOR.info.stub(channel)(pb.InfoRequest(), timeout=_ANSWER_SECONDS)
                serves = True
                if info.protocol != PROTOCOL:
                    raise errors.SupervisorVersion(
                        f"{what} failed: the MPS supervisor is of version {info.version or 'unknown'} and speaks "
                        f"protocol {info.protocol}, not {PROTOCOL}",
                        hint="plugin and supervisor must be of one release; during an upgrade it is tried again",
                    )
                yield channel, info
            except grpc.RpcError as error:
                raise _told(what, self._socket, error, serves=serves) from error


class GroupWatch:
    """Keeps a watch on the supervisor's groups between start and stop, through all its restarts."""

    def __init__(self, client: SupervisorClient, listener: Listener) -> None:
        self._client = client
        self._listener = listener
        self._call: Stream | None = None
        self._trouble = ""
        self.loop = Loop(
            "mps-watch",
            self._round,
            limit=_CONNECT_LIMIT_SECONDS,
            doing="the watch of the MPS supervisor",
            retry=Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS),
            expected=(errors.MpsError,),
        )

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = 5.0) -> bool:
        self.loop.request_stop()
        if self._call is not None:
            self._call.cancel()
        return self.loop.join(timeout)

    @property
    def trouble(self) -> str:
        """Why there is no connection, for people; empty while there is one."""
        return self._trouble

    def _round(self) -> float | None:
        if absence := self._client.absence:
            # A node without MPS is nothing to log about; where a supervisor comes, its socket does.
            self._trouble = absence
            return _NO_SOCKET_SECONDS
        try:
            with self._client.stream() as call:
                self._call = call
                self._follow(call)
        except errors.MpsError as error:
            self._trouble = str(error)
            if self.loop.stopping:
                return None
            raise
        finally:
            self._call = None
        return 0.0  # the supervisor has ended the stream in order: it stops, and another comes

    def _follow(self, call: Stream) -> None:
        if self.loop.stopping:  # stop() came before it could see the call
            call.cancel()
        while True:
            with self.loop.idle():
                message = next(call, None)
            if message is None:
                return
            self._trouble = ""
            self._listener(statuses_from_wire(message))
            self.loop.beat()


def _told(what: str, socket: Path, error: grpc.RpcError, *, serves: bool) -> errors.MpsError:
    """``serves``: the supervisor has answered before the call that failed."""
    code, said = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.GroupRefused(said)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return errors.GroupDiffers(said)
        case grpc.StatusCode.UNAVAILABLE if serves:
            return errors.SupervisorUnavailable(
                f"{what} failed at the MPS supervisor: {said}", hint="it is tried again; see the log of its pod"
            )
        case grpc.StatusCode.UNAVAILABLE:
            return errors.SupervisorUnavailable(
                f"{what} failed: the MPS supervisor does not serve {socket}: {said}",
                hint=f"see the log of its pod; where there is none, {SWITCH_ON}",
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.SupervisorVersion(
                f"{what} failed: what serves {socket} does not know the call: {said}",
                hint="plugin and supervisor must be of one release; during an upgrade it is tried again",
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
            return errors.GroupTimeout(
                f"{what} was not done in time: {said}", hint="it is tried again; see the supervisor's log"
            )
        case _:
            return errors.GroupFailed(f"{what} failed: {said or code.name}", hint="see the supervisor's log")
