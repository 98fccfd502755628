"""Do and undo the MIG steps. Nothing is remembered: each looks at the hardware, which alone knows after a crash."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import ComputeInstance, GpuInstance
from dra_driver.hardware.nvml import GpuBusy, InstanceInUse, NvmlCallError, PlacementOccupied
from kubelet_plugin.claims.entry import StepRecord
from kubelet_plugin.hardware.mig import MigHardware, describe
from kubelet_plugin.kinds.mig.place import MigPlace, from_arguments
from kubelet_plugin.kinds.mig.refused import RefusedPlacements
from kubelet_plugin.kinds.mig.steps import (
    COMPUTE_INSTANCE,
    GPU_INSTANCE,
    MODE_ON,
    Afterwards,
    MakeComputeInstance,
    MakeGpuInstance,
    MigModeOn,
)
from kubelet_plugin.prepare.kind import NothingDone, StepRunner

logger = logging.getLogger(__name__)

GPU_INSTANCE_ID = "gpuInstance"
COMPUTE_INSTANCE_ID = "computeInstance"
UUID = "uuid"


class MigModeOnRunner:
    """MIG mode, on. It is never set when it is so already: NVML refuses that on a GPU in use."""

    do_needs_intent = True
    undo_needs_intent = True
    survives_reboot = False

    def __init__(self, hardware: MigHardware) -> None:
        self._hardware = hardware

    def observe(self, step: MigModeOn, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        enabled, _pending = self._hardware.mode(step.gpu_uuid)
        return {} if enabled else None

    def do(self, step: MigModeOn, done: Sequence[StepRecord]) -> Mapping[str, str]:
        enabled, _pending = self._hardware.mode(step.gpu_uuid)
        if not enabled:
            self._hardware.set_mode(step.gpu_uuid, True)
        return {}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        """Off again, unless an instance is left, ours or anybody's, or the policy keeps it on.

        A client that holds the GPU (monitoring does) must not keep the claim from being unprepared: MIG mode stays on
        then, for the next claim to turn off.
        """
        gpu = record.arguments["gpu"]
        if record.arguments["afterwards"] == Afterwards.KEPT:
            return
        with _nothing_is_left_on_a_lost_gpu(gpu):
            if not self._hardware.mode(gpu)[0] or self._hardware.instances(gpu):
                return
            try:
                self._hardware.set_mode(gpu, False)
            except GpuBusy as error:
                logger.warning("MIG mode of GPU %s stays on: %s", gpu, error)


class GpuInstanceRunner:
    """GPU instances."""

    do_needs_intent = True
    undo_needs_intent = True
    survives_reboot = False

    def __init__(self, hardware: MigHardware, refused: RefusedPlacements) -> None:
        self._hardware = hardware
        self._refused = refused

    def observe(self, step: MakeGpuInstance, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        found = instance_there(self._hardware, step.place)
        return None if found is None else {GPU_INSTANCE_ID: str(found.id)}

    def do(self, step: MakeGpuInstance, done: Sequence[StepRecord]) -> Mapping[str, str]:
        place = step.place
        if place.compute_start is not None:
            shared = self.observe(step, done)
            if shared is not None:
                return shared
        try:
            made = self._hardware.create_gpu_instance(place.gpu_uuid, place.profile_id, place.placement)
        except PlacementOccupied as error:
            raise NothingDone(self._explain(place, error)) from error
        except HardwareError as error:
            # What the failed call may have left has no compute instance yet; one that has is somebody else's.
            found = instance_there(self._hardware, place)
            if found is not None and found.compute_instances:
                raise NothingDone(error) from error
            raise
        self._refused.forget(place)
        return {GPU_INSTANCE_ID: str(made)}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        place = from_arguments(record.arguments)
        with _nothing_is_left_on_a_lost_gpu(place.gpu_uuid):
            found = instance_there(self._hardware, place)
            if found is None or (place.compute_start is not None and found.compute_instances):
                return
            if found.compute_instances:
                raise InstanceInUse(
                    f"{describe(found)} of GPU {place.gpu_uuid} holds what this claim has not made",
                    hint="remove it with nvidia-smi mig -dci, and the GPU instance goes with the next try",
                )
            self._hardware.destroy_gpu_instance(place.gpu_uuid, found.id)

    def _explain(self, place: MigPlace, error: PlacementOccupied) -> HardwareError:
        """Why NVML refused: what lies there, or that it lists nothing there."""
        try:
            instances = self._hardware.instances(place.gpu_uuid)
        except HardwareError as unseen:  # nothing was made all the same
            logger.info("what is in the way of %s cannot be looked at: %s", place, unseen)
            return error
        there = [each for each in instances if each.placement.overlaps(place.placement)]
        if there:
            return PlacementOccupied(
                f"no room for {place}: {'; '.join(map(describe, there))} has come there in the meantime",
                hint="it was made by hand or by another tool; remove it, or wait until it is gone",
            )
        listed = "; ".join(map(describe, instances)) or "no GPU instance at all"
        message = f"NVML refuses {place} ({error.message}), but lists nothing there: on that GPU is {listed}"
        self._refused.remember(place, message)
        return PlacementOccupied(message, hint="reset the GPU when nothing runs on it: nvidia-smi --gpu-reset")


class ComputeInstanceRunner:
    """Compute instances."""

    do_needs_intent = True
    undo_needs_intent = True
    survives_reboot = False

    def __init__(self, hardware: MigHardware) -> None:
        self._hardware = hardware

    def observe(self, step: MakeComputeInstance, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        found = instance_there(self._hardware, step.place)
        compute = next(filter(step.place.is_compute, found.compute_instances), None) if found else None
        return None if found is None or compute is None else _result(found.id, compute)

    def do(self, step: MakeComputeInstance, done: Sequence[StepRecord]) -> Mapping[str, str]:
        place = step.place
        gpu_instance = _made_before(place, done)
        try:
            made = self._hardware.create_compute_instance(place.gpu_uuid, gpu_instance, place.slices)
        except PlacementOccupied as error:
            # The GPU instance was empty, or had room, a moment ago: what fills it now is somebody else's.
            raise NothingDone(error) from error
        return _result(gpu_instance, made)

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        """Of a claim that was prepared everything in its GPU instance goes, or its own part of a shared one. A prepare
        that is rolled back has no result yet, and takes away only what looks like its own."""
        place = from_arguments(record.arguments)
        with _nothing_is_left_on_a_lost_gpu(place.gpu_uuid):
            found = instance_there(self._hardware, place)
            if found is None:
                return
            everything = bool(record.result) and place.compute_start is None
            for compute in found.compute_instances:
                if everything or place.is_compute(compute):
                    self._hardware.destroy_compute_instance(place.gpu_uuid, found.id, compute.id)


def mig_runners(hardware: MigHardware, refused: RefusedPlacements) -> dict[str, StepRunner]:
    """The runner of each kind of MIG step."""
    return {
        MODE_ON: MigModeOnRunner(hardware),
        GPU_INSTANCE: GpuInstanceRunner(hardware, refused),
        COMPUTE_INSTANCE: ComputeInstanceRunner(hardware),
    }


@contextmanager
def _nothing_is_left_on_a_lost_gpu(gpu_uuid: str) -> Iterator[None]:
    """A GPU that fell off the bus comes back by a reset, which ends its instances; its pods must not wait for that."""
    try:
        yield
    except NvmlCallError as error:
        if not error.gpu_is_gone:
            raise
        logger.warning("GPU %s is lost, and its MIG instances with it: %s", gpu_uuid, error)


def instance_there(hardware: MigHardware, place: MigPlace) -> GpuInstance | None:
    """The GPU instance that the device is in, as it is now."""
    return hardware.instance(place.gpu_uuid, place.profile_id, place.placement)


def _made_before(place: MigPlace, done: Sequence[StepRecord]) -> int:
    for record in reversed(done):
        if record.kind == GPU_INSTANCE and from_arguments(record.arguments) == place:
            return int(record.result[GPU_INSTANCE_ID])
    raise HardwareError(f"no GPU instance was made for {place}")


def _result(gpu_instance: int, compute: ComputeInstance) -> Mapping[str, str]:
    return {GPU_INSTANCE_ID: str(gpu_instance), COMPUTE_INSTANCE_ID: str(compute.id), UUID: compute.uuid}
