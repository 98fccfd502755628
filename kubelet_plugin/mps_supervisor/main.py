"""gpu-dra-mps-supervisor: reads the configuration, builds the supervisor, runs it until a signal, returns an exit code.

0: ended as asked (SIGTERM, SIGINT); MPS daemons run on. 1: could not start. 2: the configuration is wrong. SIGUSR2
writes the stacks of all threads to standard error.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Sequence
from queue import SimpleQueue

import prometheus_client

from api.driver_config import DriverConfiguration, add_arguments, config_file, load
from api.strict import DecodeError
from dra_driver.ending import wait_for_ending
from dra_driver.errors import DriverError
from dra_driver.observability import logs
from dra_driver.version import __version__
from kubelet_plugin.mps_supervisor.app import COMPONENT, SupervisorApp

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMPONENT, description="Starts, observes and stops the MPS control daemons of one node."
    )
    parser.add_argument("--version", action="version", version=f"{COMPONENT} {__version__}")
    add_arguments(parser, "supervisor")
    flags = vars(parser.parse_args(arguments))
    try:
        config = load(config_file(os.environ, flags), os.environ, flags)
    except DecodeError as error:
        parser.exit(EXIT_BAD_CONFIGURATION, f"{COMPONENT}: {error}\n")
    settings = config.spec.observability
    logs.setup(settings.log_level, settings.log_format)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    return _run(config)


def _run(config: DriverConfiguration) -> int:
    # A SimpleQueue may be put to from a signal handler, whatever the main thread holds at that moment.
    ends: SimpleQueue[str] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: ends.put(signal.Signals(received).name))
    try:
        app = SupervisorApp(config)
        app.start()
    except (DriverError, OSError) as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400 - a sentence for a person, no trace
        return EXIT_FAILED
    logger.info("started", extra={"version": __version__, "driver": config.spec.driver_name})
    reason = wait_for_ending(ends)
    logger.info("stopping: %s", reason)
    app.stop()
    logger.info("stopped; MPS daemons run on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
