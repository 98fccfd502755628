"""The simulated node's ``usr/bin/nvidia-smi``: a POSIX shell script, so that it also runs inside users' containers.

CDI mounts it into them, where neither our Python nor the state file is. There it lists, from a table, the GPUs whose
device node the container has and of their MIG devices those whose two capability nodes it has, counted from 0 as the
real one counts what it sees. It uses no here documents, for which some shells need a writable /tmp.

The table is written again whenever MIG devices change, into the same file: containers hold it by bind mounts. Every
device has a line of its own and all lines are of one length, so that a shell that reads the script meanwhile finds each
line where it was.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from dra_driver.simulation.hardware.capabilities import compute_instance_minor, gpu_instance_minor
from dra_driver.simulation.hardware.description import ProductDescription
from dra_driver.simulation.hardware.placing import device_name, most_mig_devices
from dra_driver.simulation.hardware.state import ComputeInstanceState, GpuInstanceState, SimulatedState

SMI_PATH = "usr/bin/nvidia-smi"  # below the host's root

_TABLE_BEGINS = "  : table"
_TABLE_ENDS = "  : end of table"
_LINE = 96  # characters; the longest profile's name leaves some

# Where this very code lies, so that the script works from any folder, from a checkout as from an installation.
_PACKAGES = Path(__file__).resolve().parents[4]

_SCRIPT = """\
#!/bin/sh
# nvidia-smi of a simulated node. With gpu-dra's Python at hand it asks the simulated NVML; elsewhere (in a container)
# it lists the GPUs of the table below whose device node exists.
python={python}
packages={packages}
state={state}
if [ -x "$python" ] && [ -e "$packages/dra_driver/simulation/hardware/smi/program.py" ] && [ -e "$state" ]; then
  PYTHONPATH="$packages${{PYTHONPATH:+:$PYTHONPATH}}" exec "$python" -m dra_driver.simulation.hardware.smi "$state" "$@"
fi

index=0
gpu() {{  # minor, UUID, product
  shown=0 device=0
  [ -e {dev}/nvidia"$1" ] || return 0
  printf 'GPU %d: %s (UUID: %s)\\n' "$index" "$3" "$2"
  index=$((index + 1)) shown=1
}}
mig() {{  # of the GPU above it: capability minors of GPU and compute instance, UUID, profile
  [ "$shown" = 1 ] && [ -e {dev}/nvidia-caps/nvidia-cap"$1" ] && [ -e {dev}/nvidia-caps/nvidia-cap"$2" ] || return 0
  printf '  MIG %-11s Device %2d: (UUID: %s)\\n' "$4" "$device" "$3"
  device=$((device + 1))
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
    return _SCRIPT.format(
        python=shlex.quote(str(python or sys.executable)),
        packages=shlex.quote(str(_PACKAGES)),
        state=shlex.quote(str(state_file.absolute())),
        dev=shlex.quote(str(dev)),
        table=_table(state),
        driver=state.module_version or hardware.driver_version,
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
    )


def with_table(script: str, state: SimulatedState) -> str:
    """``script`` with the table of ``state``; the paths in it stay those of the process that made it."""
    head, _, rest = script.partition(_TABLE_BEGINS)
    _, _, tail = rest.partition(_TABLE_ENDS)
    return f"{head}{_table(state)}{tail}" if tail else script


def _table(state: SimulatedState) -> str:
    lines: list[str] = []
    for index, (gpu, described) in enumerate(zip(state.gpus, state.machine.hardware.gpus, strict=True)):
        product = state.product(index)
        lines.append(f"  gpu {described.minor} {gpu.uuid} {shlex.quote(product.name)}")
        devices = [
            f"  mig {gpu_instance_minor(described.minor, instance.id)}"
            f" {compute_instance_minor(described.minor, instance.id, compute.id)} {compute.uuid}"
            f" {shlex.quote(_name(product, instance, compute))}"
            for instance, compute in gpu.mig_devices()
        ]
        empty = most_mig_devices(product) - len(devices)
        lines += (line.ljust(_LINE) for line in (*devices, *["  :"] * empty))
    return "\n".join([_TABLE_BEGINS, *lines, _TABLE_ENDS])


def _name(product: ProductDescription, instance: GpuInstanceState, compute: ComputeInstanceState) -> str:
    profile = product.profile(instance.profile)
    return "unknown" if profile is None else device_name(profile, compute.slices)
