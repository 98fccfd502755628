"""The nvidia-cdi-hook of a simulated node: which hooks it has, as the two kinds of toolkit that real nodes have.

A program of its name that knows the names of its hooks, by which ``dra_driver.cdi.hooks`` tells the two apart. It runs
none of them: a real runtime on a simulated node needs the real program there, or none (CDI files are hook-free then).
The embedded runtime records hooks and runs nothing.
"""

from __future__ import annotations

from enum import Enum

HOOK_PATH = "usr/bin/nvidia-cdi-hook"

# cmd/nvidia-cdi-hook/commands/commands.go of nvidia-container-toolkit, at the tags v1.19.1 and v1.20.0.
_OLDER = ("update-ldcache", "create-symlinks", "chmod", "enable-cuda-compat", "disable-device-node-modification")
_NEWER = (*_OLDER, "update-application-profile")


class Toolkit(Enum):
    """Releases of NVIDIA Container Toolkit whose hooks differ."""

    V1_19 = "1.19.1"
    V1_20 = "1.20.0"

    @property
    def hooks(self) -> tuple[str, ...]:
        return _OLDER if self is Toolkit.V1_19 else _NEWER


def hook_script(toolkit: Toolkit) -> str:
    names = "".join(f"  echo '   {name}'\n" for name in toolkit.hooks)
    return (
        "#!/bin/sh\n"
        "case $1 in\n"
        f"--version) echo 'NVIDIA CDI Hook version {toolkit.value}' ;;\n"
        f"--help)\n{names}  ;;\n"
        "*) echo 'nvidia-cdi-hook: not simulated' >&2; exit 1 ;;\n"
        "esac\n"
    )
