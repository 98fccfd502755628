"""Time slices: a whole GPU whose configuration asks for an interval, shared by the pods of a claim or by shares of it.

The GPU is put into compute mode DEFAULT, so that several processes may use it, and gets the interval; the last claim
that holds it so sets the interval back to Default. A MIG device has no interval: its configuration changes nothing.

A record of a claim whose interval is not known (its record was lost, or NVIDIA's driver prepared it, which does not
write the interval down) has an empty one: whatever is set then is the claim's, and goes with it. The result of a record
is the interval that was set, or found.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api.claim_config import ClaimConfig, GpuConfig, SharingStrategy, TimeSliceInterval
from dra_driver.devices.naming import GpuName, read_name
from dra_driver.hardware.compute_policy import TimeSliceUnsupported
from dra_driver.hardware.model import Machine
from dra_driver.hardware.nvidia_smi import SmiFailed, SmiMissing
from kubelet_plugin.claims.entry import ClaimEntry, HeldDevice, StepRecord
from kubelet_plugin.claims.model import ClaimRef
from kubelet_plugin.hardware.time_slices import TimeSliceHardware
from kubelet_plugin.prepare.kind import ClaimDevice, Mended, NothingDone, Others, Refusal, Step, StepRunner, Wrapper

logger = logging.getLogger(__name__)

TIME_SLICE: Final = "TimeSlice"

_FIELD = "sharing.timeSlicingConfig.interval"
_GPU, _INTERVAL = "gpu", "interval"  # arguments of a record; the second one is a result, too


def slices_gpu(record: StepRecord, gpu_uuid: str) -> bool:
    """Whether the step of ``record`` gave the GPU its interval."""
    return record.kind == TIME_SLICE and record.arguments.get(_GPU) == gpu_uuid


def is_time_sliced(entry: ClaimEntry) -> bool:
    """Whether the claim has given a GPU its interval."""
    return any(record.kind == TIME_SLICE for record in entry.steps)


class TimeSlices(Wrapper):
    """Around whole GPUs."""

    name = "time-slice"

    def __init__(self, hardware: TimeSliceHardware) -> None:
        self._hardware = hardware

    def wraps(self, device: ClaimDevice) -> bool:
        return self.honours(device.config)

    def honours(self, config: ClaimConfig) -> bool:
        return _interval(config) is not None

    def refuses(self, device: ClaimDevice, beside: Sequence[ClaimDevice], others: Others) -> Refusal | None:
        """One GPU has one interval, whoever shares it. A device without one takes it as it is."""
        wanted, gpu = _interval(device.config), device.place.gpu_uuid
        if wanted is None:
            return None
        for request, theirs in _in_claim(beside, gpu):
            if theirs not in (None, wanted):
                return Refusal(_FIELD, wanted, _one_interval(gpu, f"request {request} of the same claim", theirs))
        for holder, theirs in _in_claims(others.entries, gpu):
            if theirs not in (None, wanted):
                return Refusal(_FIELD, wanted, _one_interval(gpu, f"claim {holder}", theirs), holder)
        return None

    def making_steps(self, devices: Sequence[ClaimDevice]) -> tuple[Step, ...]:
        wanted = {device.place.gpu_uuid: _interval(device.config) for device in devices}
        return tuple(SetTimeSlice(gpu, interval) for gpu, interval in wanted.items())

    def still_needed(self, record: StepRecord, others: Sequence[ClaimEntry]) -> bool:
        return any(slices_gpu(theirs, record.arguments[_GPU]) for entry in others for theirs in entry.steps)

    def again(self, record: StepRecord) -> Step:
        interval = record.arguments[_INTERVAL]
        return SetTimeSlice(record.arguments[_GPU], TimeSliceInterval(interval) if interval else None)

    def runners(self) -> Mapping[str, StepRunner]:
        return {TIME_SLICE: TimeSliceRunner(self._hardware)}

    def mend(self, claim: ClaimRef, devices: Sequence[HeldDevice], machine: Callable[[], Machine]) -> Mended:
        """Whether an interval was asked for cannot be known any more, but whether one is set can be seen."""
        whole = (held for held in devices if isinstance(read_name(held.prepared.device_name), GpuName))
        gpus = dict.fromkeys(held.gpu_uuid for held in whole if held.gpu_uuid and not held.admin_access)
        return Mended(tuple(devices), tuple(SetTimeSlice(gpu, None).record() for gpu in gpus))


@dataclass(frozen=True, slots=True)
class SetTimeSlice:
    """``interval``: None for one that somebody else has set."""

    gpu_uuid: str
    interval: TimeSliceInterval | None

    kind = TIME_SLICE

    def does(self) -> str:
        return f"set the time-slice interval of GPU {self.gpu_uuid} to {self.interval or 'what it is'}"

    def undo_does(self) -> str:
        return "set it to Default, once no other claim needs it"

    def done_when(self) -> str:
        return "nvidia-smi lists it, and the compute mode is DEFAULT"

    def record(self) -> StepRecord:
        return StepRecord(self.kind, {_GPU: self.gpu_uuid, _INTERVAL: str(self.interval or "")})


class TimeSliceRunner:
    """The interval of one GPU. Nothing is remembered: what is set is seen on the hardware."""

    do_needs_intent = True
    undo_needs_intent = False  # half undone it is made again, for a claim that is prepared
    survives_reboot = True  # usually not; but looking is cheap, and nobody else would ever set it back

    def __init__(self, hardware: TimeSliceHardware) -> None:
        self._hardware = hardware

    def observe(self, step: SetTimeSlice, done: Sequence[StepRecord]) -> Mapping[str, str] | None:
        if not self._hardware.allows_sharing(step.gpu_uuid):
            return None
        seen = self._hardware.interval(step.gpu_uuid)
        if step.interval is None:
            return {} if seen is None else {_INTERVAL: str(seen)}
        return {_INTERVAL: str(seen)} if seen is step.interval else None

    def do(self, step: SetTimeSlice, done: Sequence[StepRecord]) -> Mapping[str, str]:
        if not self._hardware.allows_sharing(step.gpu_uuid):
            self._hardware.allow_sharing(step.gpu_uuid)
        if step.interval is None:
            return {}
        try:
            self._hardware.set_interval(step.gpu_uuid, step.interval)
        except (SmiMissing, TimeSliceUnsupported) as error:
            raise NothingDone(error) from error
        except SmiFailed as error:
            raise (error if error.by_signal else NothingDone(error)) from error
        return {_INTERVAL: str(step.interval)}

    def undo(self, claim_uid: str, record: StepRecord) -> None:
        gpu = record.arguments[_GPU]
        try:
            if not self._hardware.is_there(gpu):
                logger.warning("GPU %s has gone, and its time-slice interval with it", gpu)
            elif self._hardware.interval(gpu) is not TimeSliceInterval.DEFAULT:
                self._hardware.set_interval(gpu, TimeSliceInterval.DEFAULT)
        except TimeSliceUnsupported as error:
            logger.debug("nothing to set back: %s", error)
        except (SmiMissing, SmiFailed) as error:
            if record.result or (record.arguments[_INTERVAL] and not isinstance(error, SmiMissing)):
                raise
            # Where nvidia-smi has never worked nothing was set, and a claim must be able to end there.
            logger.warning("whether claim %s has left an interval on GPU %s cannot be told: %s", claim_uid, gpu, error)


def _interval(config: ClaimConfig) -> TimeSliceInterval | None:
    """What ``config`` asks for; None for one that asks for none."""
    if not isinstance(config, GpuConfig) or config.sharing is None:
        return None
    if config.sharing.strategy is not SharingStrategy.TIME_SLICING:
        return None
    asked = config.sharing.time_slicing_config
    return (asked and asked.interval) or TimeSliceInterval.DEFAULT


def _one_interval(gpu_uuid: str, who: str, theirs: TimeSliceInterval | None) -> str:
    return (
        f"GPU {gpu_uuid} has one interval for all who share it, and {who} has asked for {theirs}: "
        f"ask for {theirs} as well, or for another GPU"
    )


def _in_claim(beside: Sequence[ClaimDevice], gpu_uuid: str) -> list[tuple[str, TimeSliceInterval | None]]:
    """Which other requests of the claim have the GPU, and the interval they ask for."""
    return [
        (other.allocated.request, _interval(other.config))
        for other in beside
        if other.place.gpu_uuid == gpu_uuid and not other.allocated.admin_access
    ]


def _in_claims(entries: Sequence[ClaimEntry], gpu_uuid: str) -> list[tuple[str, TimeSliceInterval | None]]:
    """The same of other claims, as far as it is known."""
    return [
        (entry.holder, _recorded(record)) for entry in entries for record in entry.steps if slices_gpu(record, gpu_uuid)
    ]


def _recorded(record: StepRecord) -> TimeSliceInterval | None:
    word = record.arguments.get(_INTERVAL) or record.result.get(_INTERVAL, "")
    return TimeSliceInterval(word) if word in list(TimeSliceInterval) else None
