"""What ends a process wakes its main thread, whichever thread the signal was given to."""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue

import pytest

from dra_driver.ending import wait_for_ending


def test_what_another_thread_says_ends_the_wait() -> None:
    endings: SimpleQueue[str] = SimpleQueue()
    threading.Timer(0.05, endings.put, ["asked"]).start()
    assert wait_for_ending(endings) == "asked"


def test_a_signal_that_another_thread_has_taken_ends_the_wait() -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("handlers of signals are called on the main thread, and the tests run on another one")
    endings: SimpleQueue[str] = SimpleQueue()
    before = signal.signal(signal.SIGUSR1, lambda *_: endings.put("signal"))
    done = threading.Event()

    def take() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        done.wait(10)

    taker = threading.Thread(target=take)
    late = threading.Timer(8.0, lambda: endings.put("nothing"))
    late.start()
    starter = threading.Timer(0.05, taker.start)  # once the wait has begun
    starter.start()
    try:
        assert wait_for_ending(endings) == "signal"
    finally:
        done.set()
        late.cancel()
        starter.join()
        taker.join()
        signal.signal(signal.SIGUSR1, before)
