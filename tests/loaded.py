"""A process that has loaded our programs and the sweeps of kills, and forks a copy of itself for each that is to run.

``python -m tests.loaded`` reads requests from standard input, a JSON object a line: the module, its arguments, its
environment, and the files for its output. It answers ``{"started": pid}``, and says ``{"ended": pid, "code": code}``
later. It has done nothing but load modules and has one thread, so a copy begins as ``python -m MODULE`` would once it
has imported. It ends with its standard input.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
from typing import Any

MODULES = (
    "controller.main",
    "dra_driver.allocator.cel_engine",
    "dra_driver.cli.demo",
    "dra_driver.cli.get",
    "dra_driver.cli.main",
    "dra_driver.simulation.hardware",
    "grpc",
    "kubelet_plugin.main",
    "kubelet_plugin.mps_supervisor.main",
    "kubelet_plugin.node.hardware",
    "tests.crash.fence_sweep",
    "tests.crash.fraction_sweep",
    "tests.crash.mps_sweep",
    "tests.crash.prepare_sweep",
)


class Server:
    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def serve(self) -> dict[str, Any]:
        """Returns in each copy, with what that is to be."""
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake)
        while True:
            ready, _, _ = select.select([sys.stdin, self._awake], [], [])
            if self._awake in ready:
                os.read(self._awake, 4096)
                self._tell_of_ended()
            if sys.stdin in ready:
                # One line at a time: who asks waits for the answer.
                line = sys.stdin.readline()
                if not line:
                    sys.exit()
                child = os.fork()
                if child == 0:
                    self._leave()
                    return dict(json.loads(line))
                self._say({"started": child})

    def _tell_of_ended(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _say(self, what: dict[str, int]) -> None:
        os.write(self._answers, f"{json.dumps(what)}\n".encode())

    def _leave(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (self._awake, self._wake, self._answers):
            os.close(each)


def run(request: dict[str, Any]) -> None:
    """What ``python -m`` does, with this environment and these files."""
    os.environ.clear()
    os.environ.update(request["environment"])
    files = (
        (os.devnull, os.O_RDONLY),
        *((request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("output", "errors")),
    )
    for number, (path, flags) in enumerate(files):
        opened = os.open(path, flags, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    unbuffered = bool(request["environment"].get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(write_through=unbuffered)  # type: ignore[union-attr]
    module = request["module"]
    sys.argv = [module, *request["arguments"]]
    sys.modules.pop(module, None)  # it runs under another name
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    # What a program prints goes elsewhere from the beginning.
    answers = os.dup(1)
    os.dup2(2, 1)
    for name in MODULES:
        importlib.import_module(name)
    # The grammar of CEL takes longer than all else that a scheduler needs.
    importlib.import_module("dra_driver.allocator.cel_engine").CelEngine()
    gc.collect()
    gc.freeze()
    run(Server(answers).serve())


if __name__ == "__main__":
    main()
