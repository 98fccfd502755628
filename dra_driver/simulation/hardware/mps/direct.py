"""A client without MPS: ``python -m dra_driver.simulation.hardware.mps.direct STATE PID ALLOCATE``.

It takes the devices for process PID (the shell of simulated-cuda-client) as compute mode allows, says "ok" or "error"
and what it got, as a server does, and keeps the devices until its standard input ends, as it does however that process
ends, or until it is killed with it, as happens at the end of a container. Exit code 1 when it was refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dra_driver.simulation.hardware.mps import context
from dra_driver.simulation.hardware.mps.context import FAULT, Context, Refused
from dra_driver.simulation.hardware.mps.devices import Device, State, User
from dra_driver.simulation.hardware.mps.presence import Presence


def main(arguments: Sequence[str]) -> int:
    state_file, pid, allocate = arguments
    state = State(Path(state_file))
    cgroup = state.cgroup_of(int(pid))
    presence = Presence(state.path)
    presence.begin()
    try:
        wish = context.parse_wish(f"{pid} {os.environ.get('CUDA_VISIBLE_DEVICES') or '-'} - - {allocate}")
        granted = context.grant(wish, state.devices(), 100.0, {}, {}, cgroup)
        user = User(int(pid), None, granted.allocated, cgroup, presence.holder)
        state.enter(frozenset(device.uuid for device in granted.devices), user, partial(_admit, granted))
        _say("ok", "mps=no", f"pid={pid}", *context.describe(granted), ".")
        while said := os.read(0, 4096):
            if said.strip() == FAULT:
                _say("error CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")
    except Refused as error:
        _say("error", str(error), ".")
        return 1
    finally:
        state.leave(presence.holder)
        presence.end()
    return 0


def _admit(granted: Context, device: Device) -> None:
    context.require_free(device, device.users)
    context.require_within(device, granted.allocated, granted.cgroup)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
