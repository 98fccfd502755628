"""The simulated node's ``usr/bin/nvidia-smi``: a POSIX shell script, so that it also runs inside users' containers.

CDI mounts it into them, where neither our Python nor the state file is. There it lists, from a table written at build
time, the GPUs whose device node the container has, counted from 0 as the real one counts what it sees. It uses no here
documents, for which some shells need a writable /tmp.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from dra_driver.hardware.simulated.state import SimulatedState

# Where this very code lies, so that the script works from any folder, from a checkout as from an installation.
_PACKAGES = Path(__file__).resolve().parents[3]

_SCRIPT = """\
#!/bin/sh
# nvidia-smi of a simulated node. With gpu-dra's Python at hand it asks the simulated NVML; elsewhere (in a container)
# it lists the GPUs of the table below whose device node exists.
python={python}
packages={packages}
state={state}
if [ -x "$python" ] && [ -e "$packages/dra_driver/hardware/simulated/smi.py" ] && [ -e "$state" ]; then
  PYTHONPATH="$packages${{PYTHONPATH:+:$PYTHONPATH}}" exec "$python" -m dra_driver.hardware.simulated.smi "$state" "$@"
fi

index=0
gpu() {{
  [ -e {dev}/nvidia"$1" ] || return 0
  printf 'GPU %d: %s (UUID: %s)\\n' "$index" "$3" "$2"
  index=$((index + 1))
}}
list() {{
{table}
  [ "$index" -gt 0 ] && return 0
  echo 'No devices were found'
  exit 6
}}

case "$#:$1" in
  0:) echo 'NVIDIA-SMI {driver}    Driver Version: {driver}    CUDA Version: {cuda}'; list ;;
  1:-L | 1:--list-gpus) list ;;
  1:--version)
    echo 'NVIDIA-SMI version  : {driver}'
    echo 'DRIVER version      : {driver}'
    echo 'CUDA Version        : {cuda}'
    ;;
  *)
    echo "nvidia-smi $*: not simulated in a container; try no option, -L or --version" >&2
    exit 2
    ;;
esac
"""


def smi_script(state: SimulatedState, state_file: Path, *, python: Path | None = None, dev: Path = Path("/dev")) -> str:
    """The script's text. ``python``: the one that has this package; ``dev``: where a container's device nodes are."""
    hardware = state.machine.hardware
    cuda = hardware.cuda_driver_version
    table = [
        f"  gpu {gpu.minor} {state.gpus[index].uuid} {shlex.quote(state.product(index).name)}"
        for index, gpu in enumerate(hardware.gpus)
    ]
    return _SCRIPT.format(
        python=shlex.quote(str(python or sys.executable)),
        packages=shlex.quote(str(_PACKAGES)),
        state=shlex.quote(str(state_file.absolute())),
        dev=shlex.quote(str(dev)),
        table="\n".join(table) or "  :",
        driver=hardware.driver_version,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
    )
