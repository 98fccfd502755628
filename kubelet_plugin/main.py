"""gpu-dra-kubelet-plugin: reads the configuration, builds the plugin, runs it until a signal, returns an exit code.

0: ended as asked (SIGTERM, SIGINT). 1: could not start, the kubelet refused the plugin for good, or the NVIDIA driver
was replaced and needs a new process. 2: the configuration is wrong. SIGUSR2 writes the stacks of all threads to
standard error.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from queue import SimpleQueue

import prometheus_client

from api.driver_config import DriverConfiguration, Identity, add_arguments, config_file, identity, load
from api.strict import DecodeError
from dra_driver.ending import wait_for_ending
from dra_driver.errors import ConfigError, DriverError
from dra_driver.observability import logs
from dra_driver.version import __version__
from kubelet_plugin.app import COMPONENT, PluginApp

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_BAD_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMPONENT, description="Serves the NVIDIA GPUs of one node to Kubernetes by Dynamic Resource Allocation."
    )
    parser.add_argument("--version", action="version", version=f"{COMPONENT} {__version__}")
    add_arguments(parser, "plugin")
    flags = vars(parser.parse_args(arguments))
    try:
        config = load(config_file(os.environ, flags), os.environ, flags)
        who = identity("plugin", os.environ, flags)
    except DecodeError as error:
        parser.exit(EXIT_BAD_CONFIGURATION, f"{COMPONENT}: {error}\n")
    settings = config.spec.observability
    logs.setup(settings.log_level, settings.log_format)
    # NVIDIA's driver has no ..._created series.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    return _run(config, who)


def _run(config: DriverConfiguration, who: Identity) -> int:
    # A SimpleQueue may be put to from a signal handler, whatever the main thread holds at that moment.
    ends: SimpleQueue[tuple[int, str]] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: ends.put((0, signal.Signals(received).name)))
    try:
        app = PluginApp(config, who, lambda reason: ends.put((EXIT_FAILED, reason)))
        app.start()
    except ConfigError as error:
        logger.error("wrong configuration: %s", error)  # noqa: TRY400 - a sentence for a person, no trace
        return EXIT_BAD_CONFIGURATION
    except (DriverError, OSError) as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400
        return EXIT_FAILED
    # What start-up made stays; the collector need not look through it during a prepare.
    gc.collect()
    gc.freeze()
    logger.info("started", extra={"version": __version__, "node": who.node_name, "driver": config.spec.driver_name})
    code, reason = wait_for_ending(ends)
    logger.log(logging.ERROR if code else logging.INFO, "stopping: %s", reason)
    app.stop()
    logger.info("stopped")
    return code


if __name__ == "__main__":
    sys.exit(main())
