"""The threads that answer the hook: one waits for the bell, and each request has one of its own, up to a number.

So a GPU that does not answer costs the requests about it and no others. Another thread clears, at the start and now and
then, what containers and shares have left.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Final

from dra_driver.errors import DriverError, InternalError
from dra_driver.observability.loops import Loop
from kubelet_plugin.memory_fence import hook, requests
from kubelet_plugin.memory_fence.container import parse_state
from kubelet_plugin.memory_fence.keeper import Keeper
from kubelet_plugin.memory_fence.requests import Request, Requests
from kubelet_plugin.memory_fence.share import ShareName

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 16
_TIDY_SECONDS: Final = 60.0
_LONGEST_WAIT_SECONDS: Final = 5.0  # a ring may be lost to another plugin that is killed when it has heard it
_LOCK_SECONDS: Final = 5.0  # that tidying waits for a share or a GPU
_ROUND_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 5.0


class FenceServer:
    """Answers from :meth:`start` to :meth:`stop`, for all shares that the keeper's ``Fences`` know.

    ``folder``: the plugin's on the host, as this process sees it; the hook lies in it.
    """

    def __init__(self, folder: Path, keeper: Keeper, *, wait_seconds: int = hook.WAIT_SECONDS) -> None:
        self._folder = folder
        self._keeper = keeper
        self._wait_seconds = wait_seconds
        self._requests = Requests(folder / requests.FOLDER, wait_seconds)
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self._answering = Loop("memory-fence", self._round, limit=_ROUND_SECONDS, doing="answering containers")
        self._tidying = Loop("memory-fence-tidy", self._tidy, limit=_ROUND_SECONDS, doing="clearing memory limits")

    @property
    def loops(self) -> tuple[Loop, ...]:
        """For readiness."""
        return self._answering, self._tidying

    def start(self) -> None:
        """Call it when the claims that are prepared are known. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keeper.start()
        self._requests.open()
        hook.install(self._folder, wait_seconds=self._wait_seconds)
        self._answering.start()
        self._tidying.start()

    def stop(self) -> None:
        """Hooks that wait, and those that come, are answered by the next plugin. What is being answered goes on."""
        if not self._answering.started:
            return
        self._answering.request_stop()
        self._tidying.request_stop()
        self._requests.wake()
        if self._answering.join(_STOP_SECONDS):
            self._requests.close()
        self._tidying.join(_STOP_SECONDS)

    def _tidy(self) -> float:
        self._requests.sweep()
        for problem in self._keeper.reconcile(until=time.monotonic() + _LOCK_SECONDS):
            logger.warning("%s", problem)
        return _TIDY_SECONDS

    def _round(self) -> float:
        while self._free.acquire(blocking=False):
            request = self._requests.take()
            if request is None:
                self._free.release()
                with self._answering.idle():
                    self._requests.wait(_LONGEST_WAIT_SECONDS)
                return 0.0
            threading.Thread(target=self._work, args=(request,), name="memory-fence-request", daemon=True).start()
        return 0.1  # until one of the threads is free

    def _work(self, request: Request) -> None:
        try:
            refusal = self._answer(request)
        except Exception as error:
            # Thread boundary: the hook is told, and the container does not start.
            logger.exception("limiting memory of share %s of claim %s broke", request.key, request.claim_uid)
            refusal = str(InternalError.of(error))
        finally:
            self._free.release()
        try:
            request.answer(refusal)
        except OSError as error:
            logger.warning("the answer to %s cannot be written: %s", request.folder, error)

    def _answer(self, request: Request) -> str | None:
        """None: the limits are set."""
        try:
            share = ShareName.of(request.claim_uid, request.key)
            container = parse_state(request.state)
            self._keeper.fence(share, container, until=request.until)
        except (DriverError, OSError) as error:
            logger.warning(
                "a container with share %s of claim %s is refused: %s", request.key, request.claim_uid, error
            )
            return str(error)
        logger.info("GPU memory of container %s is limited for %s", container.id, share)
        return None
