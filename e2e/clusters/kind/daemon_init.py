"""Process 1 beside a Docker daemon of our own: ``python -m e2e.clusters.kind.daemon_init FOLDER``

Started in new network, mount and PID namespaces. Prepares them, starts dockerd with FOLDER/daemon.json, takes in
orphans, hands SIGTERM on, and ends with dockerd; the kernel then ends all that is left in the PID namespace.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from e2e.clusters.packages import find_program
from e2e.clusters.processes import wait_for_go

# A default route, for what only looks whether there is one (kind's IPv6, Docker's bridge). TEST-NET-1, RFC 5737.
_GATEWAY = "192.0.2.1"


def prepare_mounts() -> None:
    """Keep out of the machine what Docker and containerd write outside of their folders: sockets, locks and state in
    /run, a key in /etc/docker, and /lib/modules, which a bind mount of kind makes where it is missing."""
    _command("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for folder in (Path("/etc"), Path("/lib/modules").parent.resolve()):
        upper, work = (Path("/run/shadow", str(folder).replace("/", "_"), name) for name in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir()
        options = f"lowerdir={folder},upperdir={upper},workdir={work}"
        _command("mount", "-t", "overlay", "-o", options, "overlay", str(folder))
    Path("/lib/modules").mkdir(exist_ok=True)


def prepare_network() -> None:
    for words in (
        "link set lo up",
        "link add gateway type veth peer name machine",
        f"address add {_GATEWAY}/24 dev gateway",
        "link set gateway up",
        "link set machine up",
        f"route add default via {_GATEWAY}",
    ):
        _command("ip", *words.split())
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def run_daemon(configuration: Path) -> int:
    """Run dockerd and be the parent of every orphan; returns dockerd's exit code."""
    dockerd = subprocess.Popen([_program("dockerd"), "--config-file", str(configuration)])

    def hand_on(number: int, _: FrameType | None) -> None:
        os.kill(dockerd.pid, number)

    signal.signal(signal.SIGTERM, hand_on)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == dockerd.pid:
            return os.waitstatus_to_exitcode(status)


def _command(name: str, *arguments: str) -> None:
    result = subprocess.run([_program(name), *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise OSError(f"{name} {' '.join(arguments)}: {result.stderr.strip()}")


def _program(name: str) -> str:
    path = find_program(name)
    if path is None:
        raise OSError(f"{name} is not installed")
    return path


def main(arguments: Sequence[str]) -> int:
    if not wait_for_go():
        return 1
    try:
        prepare_mounts()
        prepare_network()
        return run_daemon(Path(arguments[0], "daemon.json"))
    except OSError as error:
        print(f"daemon_init: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
