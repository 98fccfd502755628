"""Simulated MIG: ``mode``, ``profiles``, ``gpu_instances``, ``compute_instances``, and ``devices`` for MIG devices.

Return codes follow nvml.h: a product without MIG answers "not supported"; an enum index that NVML does not know answers
"invalid argument" (that is how a caller finds the end), one that this product lacks "not supported"; instances need MIG
mode on, changes need privileges. What fits where is decided by ``simulated.placing``.
"""

from __future__ import annotations

from dra_driver.simulation.hardware.calls import FunctionTable
from dra_driver.simulation.hardware.mig import compute_instances, devices, gpu_instances, mode, profiles

FUNCTIONS: FunctionTable = {
    **mode.FUNCTIONS,
    **profiles.FUNCTIONS,
    **gpu_instances.FUNCTIONS,
    **compute_instances.FUNCTIONS,
    **devices.FUNCTIONS,
}
