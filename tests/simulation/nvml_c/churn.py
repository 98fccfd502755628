"""Makes and destroys MIG devices again and again: ``python -m tests.simulation.nvml_c.churn ROOT START ROUNDS [STATE]``.

Through the library below ROOT, or through the simulation in Python with the state file STATE.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dra_driver.hardware.model import MigPlacement
from dra_driver.hardware.nvml import MigControl, NvmlHardware
from dra_driver.hardware.sysfs import Sysfs
from dra_driver.simulation.hardware import install


def main(root: Path, start: int, rounds: int, *state: str) -> None:
    if state:
        install(Path(state[0]))
    hardware = NvmlHardware(driver_root=root, topology=Sysfs(root))
    hardware.start()
    uuid, control = hardware.read_machine().gpus[0].uuid, MigControl()
    for _ in range(rounds):
        made = control.create_gpu_instance(uuid, 19, MigPlacement(start, 1))
        compute = control.create_compute_instance(uuid, made, 1)
        control.destroy_compute_instance(uuid, made, compute.id)
        control.destroy_gpu_instance(uuid, made)
    hardware.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
