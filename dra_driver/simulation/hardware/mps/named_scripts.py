"""What protocol 3 adds to the shell programs (``scripts``): commands as arguments, and the folders of namespaces.

A driver that does not know it has the programs without any of this.
"""

from __future__ import annotations

_TICKET = """\
  if [ -p "$pipe/.tickets" ]; then  # the folder of a namespace, in which we may have no right to make a file
    id=$(timeout 5 dd bs=8 count=1 <"$pipe/.tickets" 2>/dev/null)
    in=$pipe/.clients/$id.in out=$pipe/.clients/$id.out
    [ -p "$in" ] && return
    echo "no ticket in $pipe: the MPS daemon is busy or gone" >&2
    exit 1
  fi
"""

# -h names the modules where the protocol is 3; so one finds out that it is known (NVIDIA Dynamo, "Per-GPU Compute and
# Memory Limits with MPS", Requirements). A command may have -p before it, which says nothing new: the protocol is the
# running daemon's.
_NAMED = """\
  *:-h | *:--help | *:-q | *:--quit | *:[a-z]* | *:-p | *:--protocol)
    protocol=${CUDA_MPS_PROTOCOL_VERSION:-2}
    case "$#:$1" in
      1:*) ;;
      *:-p | *:--protocol) protocol=$2; shift 2 ;;
    esac
    case ${1-} in
      -h | --help)
        echo 'usage: nvidia-cuda-mps-control [-d | -f] [-m | -M] [-p 2|3], or MODULE VERB..., -q, -v; without: commands'
        [ "$protocol" = 3 ] && echo 'modules: server namespace client'
        exit 0
        ;;
      -q | --quit) set -- quit ;;
      [a-z]*) ;;
      *)
        have_python && run_python control -p "$protocol" "$@"
        echo 'nvidia-cuda-mps-control: the daemon does not run in a container' >&2
        exit 1
        ;;
    esac
    command -v mkfifo timeout >/dev/null || ! have_python || run_python ui "$@"
    have_daemon || { echo 'Cannot find MPS control daemon process' >&2; exit 1; }
    [ -p "$pipe/.tickets" ] && { echo "no commands through $pipe: it is for clients" >&2; exit 1; }
    make_fifos
    send command "$*"
    [ "$word" = ok ] || exec >&2
    while read -r answer <&4 && [ "$answer" != :gone ]; do printf '%s\\n' "$answer"; done
    [ "$word" = :gone ] && echo 'Cannot find MPS control daemon process'
    [ "$word" = ok ]
    exit
    ;;
"""

PLACES = {
    "ticket": _TICKET,
    "named": _NAMED,
    "there": '[ -p "$out" ] || ',
    "priority": " ${CUDA_MPS_CLIENT_PRIORITY:--}",
}
