"""The shell programs of MPS in the node's file tree, which also run in containers: the pipe directory is all they need.

CDI puts nvidia-cuda-mps-control into containers, where neither our Python nor the state file is; so the command
language and the clients of a server speak through FIFOs (``pipes``) in plain sh, with mkfifo, timeout and sleep of
coreutils or busybox. Only the daemon and a client without MPS need Python and the state. Where those tools are not, as
in the driver's image, Python speaks the language (``ui``).
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from dra_driver.simulation.hardware.mps import named_scripts

CONTROL_PATH = "usr/bin/nvidia-cuda-mps-control"  # below the host's root
SERVER_PATH = "usr/bin/nvidia-cuda-mps-server"
CLIENT_PATH = "usr/bin/simulated-cuda-client"

# Where this very code lies, so that the scripts work from any folder, from a checkout as from an installation.
_PACKAGES = Path(__file__).resolve().parents[4]

# Where a line ends in @name@, protocol 3 puts something; without it the line is as if nothing stood there.
_HEAD = """\
#!/bin/sh
python=@python@
packages=@packages@
state=@state@
pipe=${CUDA_MPS_PIPE_DIRECTORY:-/tmp/nvidia-mps}

have_python() { [ -x "$python" ] && [ -d "$packages/dra_driver/simulation/hardware/mps" ] && [ -e "$state" ]; }
run_python() {  # module of mps, arguments; -S: it needs no installed package, and starts the sooner
  module=dra_driver.simulation.hardware.mps.$1
  shift
  PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -S -m "$module" "$state" "$@"
}
have_daemon() {  # while it lives it has control open both ways, so opening that does not wait
  [ -p "$pipe/control" ] && timeout 2 sh -c ': <"$1"' sh "$pipe/control" 2>/dev/null
}
tell_of_its_end() {  # for as long as we are there to hear it
  while sleep 1 && kill -0 "$$" && have_daemon; do :; done 3>&-
  echo :gone >&3
}
make_fifos() {  # of a request of ours: .in for the answer, and .out if we say more
@ticket@  number=0
  until mkfifo -m 600 "$pipe/clients/$$.$number.in" 2>/dev/null; do
    number=$((number + 1))
    [ "$number" -lt 1000 ] || { echo "no FIFO can be made in $pipe/clients" >&2; exit 1; }
  done
  id=$$.$number in=$pipe/clients/$$.$number.in out=$pipe/clients/$$.$number.out
}
send() {  # kind, text; the first line of the answer is $word, the rest can be read from 4; :gone: nobody answers
  exec 3<>"$in" 4<"$in"
  # Nobody's job, since bash tells of the end of its own. Until it has ended, there is no end of the file in 4.
  watcher=$( (tell_of_its_end) 4<&- 5>&- >/dev/null 2>&1 </dev/null & echo $!)
  printf '%s\\n' "$1 $id $2" 1<>"$pipe/control"
  read -r word <&4
  kill "$watcher" 2>/dev/null
  exec 3>&-
  [ "$word" = taken ] && read -r word <&4 || word=:gone
}
"""

_CONTROL = """\
# nvidia-cuda-mps-control of a simulated node: the daemon with options, else commands from standard input.
case "$#:${1-}" in
  0:) command -v mkfifo timeout >/dev/null || ! have_python || run_python ui ;;
  1:-v) echo 'CUDA MPS Control binary version: @cuda@'; exit 0 ;;
@named@  *)
    have_python && run_python control "$@"
    echo "nvidia-cuda-mps-control $*: the daemon does not run in a container; without options it takes commands" >&2
    exit 1
    ;;
esac
have_daemon || { echo 'Cannot find MPS control daemon process' >&2; exit 1; }
while read -r line || [ -n "$line" ]; do
  make_fifos
  send command "$line"
  [ "$word" = :gone ] && { echo 'Cannot find MPS control daemon process' >&2; exit 1; }
  while read -r answer <&4 && [ "$answer" != :gone ]; do printf '%s\\n' "$answer"; done
  exec 4<&-
  case "$word:$line" in ok:quit*) exit 0 ;; esac
done
exit 0
"""

_SERVER = """\
#!/bin/sh
echo 'nvidia-cuda-mps-server: nvidia-cuda-mps-control starts it' >&2
exit 1
"""

_CLIENT = """\
# A client of a simulated GPU, in the place of a CUDA program: it opens a context, through MPS where
# CUDA_MPS_PIPE_DIRECTORY leads to a daemon, says what it got, and may count until it is ended or has lost its server.
allocate=- count= interval=0.2 fault=
while [ "$#" -gt 0 ]; do
  case $1 in
    --allocate) allocate=${2-}; shift ;;
    --count) count=${2-}; shift ;;
    --interval) interval=${2-}; shift ;;
    --fault) fault=yes ;;
    *)
      echo 'usage: simulated-cuda-client [--allocate SIZE] [--count FILE|-] [--interval SECONDS] [--fault]' >&2
      exit 2
      ;;
  esac
  shift
done
reader=
finish() {  # exit code
  trap - TERM INT USR1
  [ -n "$reader" ] && kill "$reader" 2>/dev/null
  printf 'bye\\n' 2>/dev/null >&5
  exec 5>&-
  exit "$1"
}

if have_daemon; then
  make_fifos
  @there@mkfifo -m 600 "$out" || exit 1
  exec 5<>"$out"
  wish="$$ ${CUDA_VISIBLE_DEVICES:--} ${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE:--}"
  send client "$wish ${CUDA_MPS_PINNED_DEVICE_MEM_LIMIT:--} $allocate@priority@"
elif have_python; then
  folder=$(mktemp -d) && mkfifo "$folder/in" "$folder/out" || exit 1
  (run_python direct "$$" "$allocate" <"$folder/out" >"$folder/in") &
  exec 5>"$folder/out" 4<"$folder/in"
  rm -r "$folder"
  read -r word <&4
else
  echo 'mps=no'
  echo 'simulated-cuda-client: no MPS daemon, and no simulated node to open a context on' >&2
  exit 1
fi
[ "$word" = ok ] || [ "$word" = error ] || {
  echo 'CUDA_ERROR_MPS_CONNECTION_FAILED: the MPS daemon or server is gone' >&2
  exit 1
}
while read -r line <&4 && [ "$line" != . ] && [ "$line" != :gone ]; do
  if [ "$word" = ok ]; then printf '%s\\n' "$line"; else printf '%s\\n' "$line" >&2; fi
done
[ "$word" = ok ] || exit 1
trap 'finish 0' TERM INT  # not before: a child that is ended right after its fork would still have the trap
[ -n "$fault" ] && printf 'fault\\n' >&5
if [ -n "$count$fault" ]; then
  trap 'finish 1' USR1
  (
    trap - TERM INT USR1
    exec 5>&-
    if read -r line <&4; then
      printf '%s\\n' "${line#error }" >&2
    else
      echo 'CUDA_ERROR_MPS_RPC_FAILURE: the MPS server is gone' >&2
    fi
    kill -s USR1 "$$"
  ) &
  reader=$!
  ticks=0
  while :; do
    ticks=$((ticks + 1))
    case $count in
      -) echo "$ticks" ;;
      ?*) echo "$ticks" >"$count" ;;
    esac
    sleep "$interval" 4<&- 5>&-
  done
fi
finish 0
"""


def control_script(state_file: Path, cuda_version: int, *, named: bool = False, python: Path | None = None) -> str:
    """``python``: the one that has this package. ``named``: the driver knows protocol 3."""
    return _filled(_HEAD + _CONTROL, state_file, python, named=named).replace("@cuda@", str(cuda_version))


def server_script() -> str:
    return _SERVER


def client_script(state_file: Path, *, named: bool = False, python: Path | None = None) -> str:
    return _filled(_HEAD + _CLIENT, state_file, python, named=named)


def _filled(script: str, state_file: Path, python: Path | None, *, named: bool) -> str:
    for place, text in named_scripts.PLACES.items():
        script = script.replace(f"@{place}@", text if named else "")
    return (
        script.replace("@python@", shlex.quote(str(python or sys.executable)))
        .replace("@packages@", shlex.quote(str(_PACKAGES)))
        .replace("@state@", shlex.quote(str(state_file.absolute())))
    )
