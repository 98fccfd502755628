"""The command gpu-dra-controller: parse, build, run until told to stop, return an exit code.

0: stopped by SIGTERM or SIGINT. 1: it leads no more, or something outside failed. 2: wrong flags or configuration.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

from api.driver_config import DriverConfiguration, Identity, add_arguments, config_file, identity, load
from api.strict import DecodeError
from controller.app import COMPONENT, Controller, ControllerOptions, Election
from controller.challenge import ChallengeTimings
from controller.collecting import collect_seldom
from controller.dry_run import dry_run
from controller.plugin_config import ObjectName
from dra_driver.devices.configured import device_policy
from dra_driver.ending import wait_for_ending
from dra_driver.errors import DriverError
from dra_driver.kube.connect import connect
from dra_driver.kube.interface import KubeApi
from dra_driver.observability import logs
from dra_driver.version import __version__

logger = logging.getLogger(__name__)

_LOST = "it leads no more, the log says why; another controller may lead"


def main(arguments: Sequence[str] | None = None) -> int:
    flags = vars(_parser().parse_args(arguments))
    try:
        config = load(config_file(os.environ, flags), os.environ, flags)
        who = identity("controller", os.environ, flags)
    except DecodeError as error:
        sys.stderr.write(f"{COMPONENT}: {error}\n")
        return 2
    spec = config.spec
    logs.setup(spec.observability.log_level, spec.observability.log_format)
    try:
        api = connect(spec.kubernetes.kubeconfig, timeout=spec.kubernetes.request_timeout)
    except DriverError as error:
        logger.error("cannot connect to Kubernetes: %s", error)  # noqa: TRY400 - the sentence says it all
        return 2
    options = make_options(config, who)
    if flags["dry_run"]:
        return dry_run(api, options.driver, options.policy, sys.stdout, plugin_config=options.plugin_config)
    return run(api, options)


def run(api: KubeApi, options: ControllerOptions) -> int:
    """Run a controller until SIGTERM, SIGINT or the loss of its lease. Call from the main thread."""
    # SimpleQueue.put is the one way to wake a thread that is safe in a signal handler.
    endings: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        endings.put(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    logger.info("%s %s starting", COMPONENT, __version__, extra={"driver": options.driver, "as": options.identity})
    controller = Controller(api, options, on_lost=lambda: endings.put(_LOST))
    collect_seldom()
    try:
        controller.start()
        ending = wait_for_ending(endings)
        logger.info("stopping: %s", ending)
    except OSError as error:
        logger.error("cannot start: %s", error)  # noqa: TRY400 - the sentence says it all
        return 1
    finally:
        controller.stop()
    return 1 if ending == _LOST else 0


def make_options(config: DriverConfiguration, who: Identity) -> ControllerOptions:
    """The part of the configuration that the controller uses, in its own words."""
    spec = config.spec
    settings, plugin_config = spec.controller.leader_election, spec.sharing.device_plugin_config
    name = who.pod_name or socket.gethostname()
    election = Election(
        namespace=settings.namespace or who.namespace,
        name=settings.lease_name,
        identity=f"{name}_{secrets.token_hex(4)}",  # two runs of one pod are two candidates
        lease_seconds=settings.lease_duration,
        renew_deadline=settings.renew_deadline,
        retry_period=settings.retry_period,
    )
    return ControllerOptions(
        driver=spec.driver_name,
        identity=name,
        policy=device_policy(spec),
        timings=ChallengeTimings(settle=spec.controller.wipe.settle, jitter=spec.controller.wipe.jitter),
        election=election if settings.enabled else None,
        plugin_config=ObjectName(plugin_config.namespace, plugin_config.name) if plugin_config.name else None,
        http_endpoint=spec.observability.http_endpoint or "",
        metrics_path=spec.observability.metrics_path,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMPONENT, description="Publishes the GPUs of all nodes as ResourceSlices. Touches no hardware."
    )
    parser.add_argument("--version", action="version", version=f"{COMPONENT} {__version__}")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the slices that would be written, as YAML, and write nothing"
    )
    add_arguments(parser, "controller")
    return parser


if __name__ == "__main__":
    sys.exit(main())
