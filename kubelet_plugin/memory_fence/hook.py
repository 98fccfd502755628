"""The script that a runtime runs on the host for each container with a fenced share, before the container's processes.

The host has none of our files on its paths and perhaps no Python, so it is POSIX sh with cat, mkdir, mv and sleep. It
hands the runtime's state to the plugin through ``requests`` and waits for the answer, for a bounded time: a plugin that
is being replaced meanwhile answers in its next life. No answer, or a refusal, is a sentence on standard error and an
exit code, with which runtimes make no container (OCI runtime-spec, createRuntime hooks); the kubelet tries again.

It is run as ``sh hook ...`` so that a file system without the right to execute does not matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dra_driver.files import Durability, write_atomically
from kubelet_plugin.memory_fence import requests

FILE: Final = "hook"
WAIT_SECONDS: Final = 20
"""For the answer. A runtime's own limit must be above it."""

_SCRIPT = """\
#!/bin/sh
# createRuntime hook: hook CLAIM-UID SHARE, the OCI state on standard input.
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin
export PATH
umask 077
fail() {
  printf '%s\\n' "gpu-dra: GPU memory of share ${2:-?} of claim ${1:-?} cannot be limited: $3" >&2
  exit 1
}
[ "$#" -eq 2 ] || fail '' '' 'the hook takes a claim and a share'
folder=${0%/*}/@REQUESTS@
number=0
until mkdir "$folder/$$.$number" 2>/dev/null; do
  number=$((number + 1))
  [ -d "$folder" ] && [ "$number" -lt 1000 ] || fail "$1" "$2" "no request can be made in $folder"
done
request=$folder/$$.$number
{ printf '%s\\n%s\\n' "$1" "$2" && cat; } >"$request/@WRITING@" && mv "$request/@WRITING@" "$request/@STATE@" ||
  fail "$1" "$2" "the request cannot be written to $request"
# In the background and without our output, for which the runtime waits: a pipe that nobody empties may be full.
[ -p "$folder/@BELL@" ] && (echo 1<>"$folder/@BELL@") </dev/null >/dev/null 2>&1 &
pause=0.05 tries=$((@SECONDS@ * 20))
while :; do
  if [ -f "$request/@ANSWER@" ]; then
    { read -r word && read -r text; } <"$request/@ANSWER@"
    mv "$request/@ANSWER@" "$request/@SEEN@" 2>/dev/null
    [ "$word" = ok ] && exit 0
    fail "$1" "$2" "$text"
  fi
  [ "$tries" -gt 0 ] || break
  if sleep "$pause" 2>/dev/null; then
    tries=$((tries - 1))
  else  # not every sleep knows parts of a second
    [ "$pause" != 1 ] || fail "$1" "$2" 'there is no sleep to wait with'
    pause=1 tries=@SECONDS@
  fi
done
fail "$1" "$2" "the plugin gave no answer in @SECONDS@ s; is its pod running on this node?"
"""


def script(wait_seconds: int = WAIT_SECONDS) -> str:
    text = _SCRIPT.replace("@SECONDS@", str(wait_seconds))
    for name, value in (
        ("REQUESTS", requests.FOLDER),
        ("BELL", requests.BELL),
        ("WRITING", requests.WRITING),
        ("STATE", requests.STATE),
        ("ANSWER", requests.ANSWER),
        ("SEEN", requests.SEEN),
    ):
        text = text.replace(f"@{name}@", value)
    return text


def install(folder: Path, *, wait_seconds: int = WAIT_SECONDS) -> Path:
    """Put the script into ``folder``, the plugin's on the host, in the place of another version's. Raises OSError.

    It is in CDI files that outlive the plugin, so it stays when the plugin ends.
    """
    path = folder / FILE
    write_atomically(path, script(wait_seconds).encode(), mode=0o755, durability=Durability.LASTING)
    return path
