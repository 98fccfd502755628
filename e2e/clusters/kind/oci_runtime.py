#!/usr/bin/python3 -ISs
"""An OCI runtime for Docker that makes a container startable by a root that may not raise limits, then becomes runc.

Docker gives ``--privileged`` containers every capability there is, and runc fails when it may not grant one: kind
cannot create a node where CAP_SYS_RESOURCE is missing. For ``create`` and ``run`` this edits the bundle's config.json
(runtime-spec config.md), for ``exec`` the document of ``--process``; where nothing is missing it edits nothing.

It runs outside of our environment, by the system's Python, and imports the standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

RUNC = ("/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc")
SYS_RESOURCE = 24  # linux/capability.h
# The flags before the command that take a value (runc(8)); a value must not be taken for the command.
VALUED = {"--log", "--log-format", "--root", "--criu", "--rootless"}


def command_of(arguments: Sequence[str]) -> str | None:
    """The subcommand ("create"), or None."""
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in VALUED:
            skip = True
        elif not argument.startswith("-"):
            return argument
    return None


def option_of(arguments: Sequence[str], *names: str) -> str | None:
    """The value of a flag in either form, ``--bundle X`` or ``--bundle=X``; None without it."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else arguments[position + 1]
    return None


def document_of(arguments: Sequence[str]) -> tuple[str, str | None] | None:
    """The JSON file that this call takes its process from, and the key of the process in it (None: all of it)."""
    command = command_of(arguments)
    if command in ("create", "run"):
        return os.path.join(option_of(arguments, "--bundle", "-b") or ".", "config.json"), "process"
    if command == "exec":
        path = option_of(arguments, "--process", "-p")
        return (path, None) if path else None
    return None


def fitted(
    process: Mapping[str, Any], bounding: int, oom_score_adj: int, hard_limit: Callable[[str], int]
) -> Mapping[str, Any]:
    """``process`` with what a caller with these bounds may give; ``hard_limit`` maps a limit's name to its maximum."""
    if bounding >> SYS_RESOURCE & 1:
        return process
    result = dict(process)
    sets = process.get("capabilities") or {}
    result["capabilities"] = {
        name: [capability for capability in held if capability != "CAP_SYS_RESOURCE"] for name, held in sets.items()
    }
    if process.get("oomScoreAdj") is not None:
        result["oomScoreAdj"] = max(process["oomScoreAdj"], oom_score_adj)
    limits = []
    for limit in process.get("rlimits") or []:
        most = hard_limit(limit["type"])
        if most == resource.RLIM_INFINITY:
            limits.append(limit)
        else:
            limits.append({**limit, "hard": min(limit["hard"], most), "soft": min(limit["soft"], most)})
    if "rlimits" in process:
        result["rlimits"] = limits
    return result


def fit(path: str, key: str | None) -> None:
    with open(path) as file:
        document = json.load(file)
    with open("/proc/self/status") as file:
        bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    with open("/proc/self/oom_score_adj") as file:
        own_score = int(file.read())
    process = document[key] if key else document
    result = fitted(process, bounding, own_score, lambda name: resource.getrlimit(getattr(resource, name))[1])
    if result == process:
        return
    if key:
        document[key] = result
    else:
        document = result
    partial = f"{path}.fitted"
    with open(partial, "w") as file:
        json.dump(document, file)
    os.replace(partial, path)


def main(arguments: Sequence[str]) -> None:
    target = document_of(arguments)
    if target:
        fit(*target)
    for runc in RUNC:
        if os.path.exists(runc):
            os.execv(runc, ["runc", *arguments])  # noqa: S606
    sys.exit(f"oci_runtime: none of {', '.join(RUNC)} exists: install runc")


if __name__ == "__main__":
    main(sys.argv[1:])
