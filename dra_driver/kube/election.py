"""Leader election on a coordination.k8s.io Lease: of several candidates one leads, and it stops leading in time.

Time is monotonic and local: a lease of another holder counts from when this process saw it change, never from its
timestamps. Every call runs under a limit of its own, every failure counts as a failed renewal, and a watchdog thread
ends leadership at the renew deadline even if a call hangs. Before it writes, a leader's worker asks
:meth:`LeaderElector.holds_lease_for`, so that a paused process does not write on a lease that has passed.

The order of times must be retry_period < renew_deadline < lease_seconds, as in client-go's leaderelection.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dra_driver.kube.backoff import Backoff
from dra_driver.kube.interface import LEASES, AlreadyExists, ApiError, Conflict, KubeApi, NotFound, Obj
from dra_driver.observability.loops import Loop

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CALL_SECONDS = 5.0
_STOP_SECONDS = 12.0
_LIMIT_SECONDS = 15.0  # one round is one call, which ends after _CALL_SECONDS whatever the API server does
# Calls that never returned, beside the present one. More would only pile up threads.
_MAX_HANGING = 3


class _TakenError(Exception):
    """Another holds the lease that this process leads on."""


class LeaderElector:
    """One candidate. It leads at most once: after losing the lease it stays stopped, and its process should end.

    ``on_started`` runs on a thread of its own with an event that is set when leadership ends; ``on_stopped`` runs once
    after leadership ended, lost or given up, on whichever thread noticed.
    """

    def __init__(
        self,
        api: KubeApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        on_started: Callable[[threading.Event], None],
        on_stopped: Callable[[], None],
        lease_seconds: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        stop_seconds: float = _STOP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``stop_seconds``: how long :meth:`stop` waits for ``on_started``. Raises ValueError when the times are not in
        order."""
        if not 0 < retry_period < renew_deadline < lease_seconds:
            raise ValueError(
                f"leader election needs retry period < renew deadline < lease duration, "
                f"got {retry_period} s, {renew_deadline} s, {lease_seconds} s"
            )
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_started = on_started
        self._on_stopped = on_stopped
        self._lease_seconds = lease_seconds
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._stop_seconds = stop_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._calls = _BoundedCalls()
        self._lock = threading.Lock()
        self._ended = threading.Event()  # leadership ended; what on_started waits on
        self._started_leading = False
        self._renewed_at = 0.0  # when the last successful write began
        self._lease: Obj | None = None  # as last written by us
        self._observed: tuple[str, str] | None = None  # (uid, resourceVersion) of another's lease
        self._observed_at = 0.0
        self._election = Loop(
            "leader-election",
            self._round,
            limit=_LIMIT_SECONDS,
            doing=f"renewing lease {namespace}/{name}",
            retry=Backoff(retry_period, retry_period),
        )
        self._watchdog = Loop(
            "leader-watchdog",
            self._watch_deadline,
            limit=_LIMIT_SECONDS,
            doing=f"watching the deadline of lease {namespace}/{name}",
            retry=Backoff(retry_period, retry_period),
        )
        self._leader: threading.Thread | None = None

    @property
    def loops(self) -> tuple[Loop, ...]:
        return self._election, self._watchdog

    def start(self) -> None:
        self._election.start()

    def stop(self) -> None:
        """1. stop trying; 2. end leadership (``on_stopped``); 3. release the lease, so that another leads at once.

        While ``on_started`` still runs the lease is not released: the next leader waits for it to run out.
        """
        self._election.request_stop()
        self._end_leadership("stopped")
        give_up = time.monotonic() + self._stop_seconds
        ended = [loop.join(max(0.0, give_up - time.monotonic())) for loop in self.loops]
        if not all((*ended, self._leader_left(max(0.0, give_up - time.monotonic())))):
            logger.warning("lease %s/%s is not released: its holder still works", self._namespace, self._name)
            return
        self._release()

    def is_leader(self) -> bool:
        """Whether this process leads now; false from the renew deadline on, whatever the threads are doing."""
        with self._lock:
            return self._leads() and self._clock() < self._renewed_at + self._renew_deadline

    def holds_lease_for(self, seconds: float) -> bool:
        """Whether this process leads and no other can take the lease within ``seconds``."""
        with self._lock:
            return self._leads() and self._clock() + seconds <= self._renewed_at + self._lease_seconds

    def lost(self) -> bool:
        """Whether leadership was had and is over."""
        return self._ended.is_set()

    def _leads(self) -> bool:
        return self._started_leading and not self._ended.is_set()

    # -- acquiring and renewing -------------------------------------------------------------------------------------

    def _round(self) -> float | None:
        if self._ended.is_set():
            self._election.request_stop()
            return None
        began = self._clock()
        if self._leads():
            left = self._renewed_at + self._renew_deadline - began
            if left <= 0:
                self._end_leadership("the renew deadline passed")
                return 0.0
            limit = min(_CALL_SECONDS, left)
        else:
            limit = _CALL_SECONDS
        if self._attempt(limit, began):
            self._begin_leadership()
        # Candidates that lost the same leader should not knock at the same moment.
        spread = 0.0 if self._leads() else 0.2 * random.random()  # noqa: S311 - no secret
        return self._retry_period * (1 + spread)

    def _attempt(self, limit: float, began: float) -> bool:
        """One try to acquire or renew within ``limit`` seconds; True when the lease is ours from ``began`` on."""
        try:
            lease = self._calls.call(self._acquire_or_renew, limit)
        except _TakenError as error:
            self._lease = None
            self._end_leadership(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the lease was not renewed
            self._lease = None
            logger.log(
                logging.WARNING if self._leads() else logging.INFO,
                "lease %s/%s was not acquired or renewed: %r",
                self._namespace,
                self._name,
                error,
            )
            return False
        if lease is None:
            return False
        self._lease = lease  # even if leadership ended meanwhile: the release needs this version
        with self._lock:
            if self._ended.is_set():
                return False
            self._renewed_at = began
        return True

    def _acquire_or_renew(self) -> Obj | None:
        """The lease as the server has it after our write, or None when another holds it."""
        known = self._lease
        if known is not None:
            # The usual renewal: one write, guarded by the resourceVersion of our last one.
            try:
                return self._api.update(LEASES, self._renewed(known))
            except (Conflict, NotFound):
                logger.debug("lease changed behind our back, reading it")
        try:
            lease = self._api.get(LEASES, self._name, self._namespace)
        except NotFound:
            try:
                return self._api.create(LEASES, self._new_lease())
            except AlreadyExists:
                return None
        if not self._may_take(lease):
            if self._leads():
                raise _TakenError(f"the lease is held by {lease['spec']['holderIdentity']}")
            return None
        try:
            return self._api.update(LEASES, self._renewed(lease))
        except Conflict:
            return None

    def _may_take(self, lease: Obj) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        metadata = lease["metadata"]
        seen = (metadata.get("uid", ""), metadata.get("resourceVersion", ""))
        now = self._clock()
        if seen != self._observed:
            self._observed, self._observed_at = seen, now
            return False
        return now >= self._observed_at + float(spec.get("leaseDurationSeconds") or self._lease_seconds)

    def _new_lease(self) -> Obj:
        now = self._now()
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._duration(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }

    def _renewed(self, lease: Obj) -> Obj:
        """``lease`` held by us from now on. Keeps its resourceVersion, which makes the write conditional."""
        spec: dict[str, Any] = dict(lease.get("spec") or {})
        now = self._now()
        if spec.get("holderIdentity") != self._identity:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
            spec["acquireTime"] = now
        spec.update(holderIdentity=self._identity, leaseDurationSeconds=self._duration(), renewTime=now)
        return {**lease, "spec": spec}

    def _release(self) -> None:
        """Give the lease to whoever asks next. Best effort: without it the others wait for it to run out."""
        lease = self._lease
        if lease is None:
            return
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._now()}
        try:
            self._calls.call(lambda: self._api.update(LEASES, {**lease, "spec": spec}), _CALL_SECONDS)
        except (ApiError, TimeoutError, RuntimeError) as error:
            logger.warning("lease %s/%s was not released: %s", self._namespace, self._name, error)

    # -- leading ----------------------------------------------------------------------------------------------------

    def _begin_leadership(self) -> None:
        with self._lock:
            if self._started_leading or self._ended.is_set() or self._election.stopping:
                return
            self._started_leading = True
        logger.info("leading", extra={"identity": self._identity})
        self._watchdog.start()
        self._leader = threading.Thread(target=self._lead, name="leader", daemon=True)
        self._leader.start()

    def _lead(self) -> None:
        try:
            self._on_started(self._ended)
        except Exception:
            # A lease that is renewed by a process without its work would keep all others from it.
            logger.exception("the leader's work broke")
            self._end_leadership("the leader's work broke")

    def _leader_left(self, timeout: float) -> bool:
        """Whether ``on_started`` has ended within ``timeout`` seconds, or is what asks."""
        leader = self._leader
        if leader is None or leader is threading.current_thread():
            return True
        leader.join(timeout)
        return not leader.is_alive()

    def _watch_deadline(self) -> float | None:
        with self._lock:
            left = self._renewed_at + self._renew_deadline - self._clock()
        if left > 0:
            return left
        self._end_leadership("the renew deadline passed")
        return None

    def _end_leadership(self, why: str) -> None:
        with self._lock:
            if not self._leads():
                return
            self._ended.set()
        self._watchdog.request_stop()
        self._election.wake()
        logger.log(logging.INFO if self._election.stopping else logging.ERROR, "no longer leading: %s", why)
        try:
            self._on_stopped()
        except Exception:
            # The callback is another component's code, and whoever noticed the end has more to do.
            logger.exception("telling that leadership ended failed")

    def _duration(self) -> int:
        # Whole seconds, rounded up: the others must not take the lease before we take it for lost.
        return max(1, math.ceil(self._lease_seconds))

    def _now(self) -> str:
        """metav1.MicroTime, the format of Lease times."""
        now = self._wall_clock()
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1_000_000):06d}Z"


class _BoundedCalls:
    """Runs calls with a time limit, whether or not the API client has one. A call that hangs is left behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    def call(self, function: Callable[[], T], limit: float) -> T:
        """The result of ``function()``. Raises what it raises, TimeoutError after ``limit`` seconds."""
        with self._lock:
            if self._running > _MAX_HANGING:
                raise TimeoutError(f"{self._running} earlier calls to the API server still hang")
            self._running += 1
        outcome: list[T] = []
        failure: list[BaseException] = []
        finished = threading.Event()

        def run() -> None:
            try:
                outcome.append(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller below
                failure.append(error)
            finally:
                with self._lock:
                    self._running -= 1
                finished.set()

        threading.Thread(target=run, name="leader-election-call", daemon=True).start()
        if not finished.wait(limit):
            raise TimeoutError(f"the API server did not answer within {limit:.1f} s")
        if failure:
            raise failure[0]
        return outcome[0]
