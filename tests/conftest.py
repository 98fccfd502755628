"""For all tests: nothing that a run has started outlives it, Ctrl-C reaches what a test starts, those that wait for long
come first, and little is spent on the collection of garbage."""

from __future__ import annotations

import gc
import signal
import subprocess

import pytest

from tests.programs import end_loaded
from tests.run_guard import start_guard

_GUARD = pytest.StashKey[subprocess.Popen[bytes] | None]()


def pytest_configure(config: pytest.Config) -> None:
    # The workers of pytest-xdist are started by the run and carry its mark.
    if not hasattr(config, "workerinput"):
        _hand_down_sigint()
        config.stash[_GUARD] = start_guard()


def _hand_down_sigint() -> None:
    """A script's background job ignores SIGINT, and so would all that it starts; a handler of one's own is not inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)


def pytest_unconfigure() -> None:
    end_loaded()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A minute of waiting costs nothing beside other tests, but at the end, when all others are done, a minute."""
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)


def pytest_collection_finish() -> None:
    """Thousands of tests are many objects, which stay, and looking through them took a tenth of all the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
