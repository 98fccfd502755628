"""The part of the simulated nvidia-smi that shows and changes MIG: ``-mig 0|1`` and a subset of ``mig``.

    nvidia-smi [-i GPU,...] -mig 0|1
    nvidia-smi mig [-i GPU,...] -lgip | -lgi | -lci
    nvidia-smi mig [-i GPU,...] -cgi PROFILE[:START],... [-C]       PROFILE: id, or name as 3g.20gb
    nvidia-smi mig [-i GPU,...] -dci [-gi ID] [-ci ID] | -dgi [-gi ID]

Options, words and tables are the real one's, so that a person at a simulated node, and a test that plays one, changes
MIG behind the plugin's back the usual way. Everything goes through NVML; NVML's code for a refusal is
the exit code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from dra_driver.errors import HardwareError
from dra_driver.hardware.model import Gpu, GpuInstance, MigPlacement, MigProfile
from dra_driver.hardware.nvml import InstanceInUse, MigControl, NvmlCallError, PlacementOccupied, Reading
from dra_driver.hardware.nvml.binding import call
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware.smi.options import NotUnderstood, Options

# The codes behind the errors that MigControl names.
_CODES = {InstanceInUse: Return.IN_USE, PlacementOccupied: Return.INSUFFICIENT_RESOURCES}
_ACTIONS = frozenset({"-lgip", "-lgi", "-lci", "-cgi", "-dci", "-dgi"})
_WITH_VALUE = frozenset({"-i", "-cgi", "-gi", "-ci"})


def set_mode(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    """``-mig 0|1``. A mode that is only pending is a warning and a success, as with the real one."""
    options = Options.parse(words, values=("-i", "-mig"))
    wanted = options.given["-mig"]
    if wanted not in ("0", "1"):
        raise NotUnderstood("-mig takes 0 or 1, and -i to say for which GPUs")
    for gpu in _gpus(options, reading):
        bus_id = f"0000{gpu.pci_bus_id.upper()}"
        handle = call("nvmlDeviceGetHandleByUUID", gpu.uuid)
        status = int(call("nvmlDeviceSetMigMode", handle, int(wanted), device=gpu.uuid))
        if status:
            text = call("nvmlErrorString", status)
            state = "enable" if wanted == "1" else "disable"
            out.write(f"Warning: MIG mode is in pending {state} state for GPU {bus_id}:{text}\n")
        else:
            out.write(f"{'Enabled' if wanted == '1' else 'Disabled'} MIG Mode for GPU {bus_id}\n")
    out.write("All done.\n")
    return 0


def mig(words: Sequence[str], reading: Reading, out: TextIO, err: TextIO) -> int:
    """``mig ...``, without the word itself. NotUnderstood for what is not simulated."""
    options = Options.parse(words, values=_WITH_VALUE, flags=(_ACTIONS - _WITH_VALUE) | {"-C"})
    actions = _ACTIONS & options.given.keys()
    if len(actions) != 1:
        raise NotUnderstood(f"mig does one of {', '.join(sorted(_ACTIONS))} at a time")
    action = next(iter(actions))
    gpus = _gpus(options, reading)
    if any(gpu.mig is None for gpu in gpus) or not gpus:
        out.write("No MIG-supported devices found.\n")
        return int(Return.NOT_SUPPORTED)
    try:
        return _ACTION[action](options, gpus, out)
    except HardwareError as error:
        err.write(f"{error}\n")
        return error.code if isinstance(error, NvmlCallError) else int(_CODES.get(type(error), Return.UNKNOWN))


def _list_profiles(_options: Options, gpus: Sequence[Gpu], out: TextIO) -> int:
    rows = []
    for gpu in gpus:
        for profile in _profiles(gpu):
            free = _free(gpu, profile)
            peer = "Yes" if profile.p2p_supported else "No"
            rows.append(
                f"{gpu.index:>4}  {'MIG ' + profile.name:<18}{profile.id:>3}     {free}/{profile.instance_count}"
                f"{profile.memory_mib / 1024:>12.2f}      {peer:<3}"
                f"{profile.multiprocessors:>7}{profile.decoders:>6}{profile.encoders:>6}   "
            )
            rows.append(f"{'':>58}{profile.copy_engines:>6}{profile.jpeg_engines:>6}{profile.ofa_engines:>6}   ")
    heading = (
        "GPU instance profiles:",
        "GPU   Name             ID    Instances   Memory     P2P     SM    DEC   ENC",
        "                             Free/Total   GiB               CE   JPEG   OFA",
    )
    out.writelines(_table(heading, rows, 77))
    return 0


def _list_instances(_options: Options, gpus: Sequence[Gpu], out: TextIO) -> int:
    rows = [
        f"{gpu.index:>4}  {'MIG ' + each.profile_name:<20}{each.profile_id:>3}{each.id:>9}"
        f"{f'{each.placement.start}:{each.placement.size}':>13}     "
        for gpu in gpus
        for each in _instances(gpu)
    ]
    heading = (
        "GPU instances:",
        "GPU   Name             Profile  Instance   Placement",
        "                         ID       ID       Start:Size",
    )
    out.writelines(_table(heading, rows, 57) if rows else ["No GPU instances found: Not Found\n"])
    return 0


def _list_compute(_options: Options, gpus: Sequence[Gpu], out: TextIO) -> int:
    rows = [
        f"{gpu.index:>4}{each.id:>7}     {'MIG ' + each.profile_name:<20}{compute.id:>5}"
        f"{f'{compute.start}:{compute.slices}':>13}   "
        for gpu in gpus
        for each in _instances(gpu)
        for compute in each.compute_instances
    ]
    heading = (
        "Compute instances:",
        "GPU     GPU       Name           Instance   Placement",
        "      Instance                      ID      Start:Size",
    )
    out.writelines(_table(heading, rows, 57) if rows else ["No compute instances found: Not Found\n"])
    return 0


def _create(options: Options, gpus: Sequence[Gpu], out: TextIO) -> int:
    control = MigControl()
    for gpu in gpus:
        for wanted in options.given["-cgi"].split(","):
            name, _, start = wanted.partition(":")
            profile = _profile(gpu, name)
            identifier = _create_instance(gpu, profile, start)
            out.write(
                f"Successfully created GPU instance ID {identifier:>2} on GPU {gpu.index:>2}"
                f" using profile MIG {profile.name} (ID {profile.id:>2})\n"
            )
            if "-C" in options.given:
                compute = control.create_compute_instance(gpu.uuid, identifier, profile.slice_count)
                out.write(
                    f"Successfully created compute instance ID {compute.id:>2} on GPU {gpu.index:>2}"
                    f" GPU instance ID {identifier:>2} using profile MIG {profile.name}\n"
                )
    return 0


def _create_instance(gpu: Gpu, profile: MigProfile, start: str) -> int:
    if start:
        if not start.isdecimal():
            raise NotUnderstood(f"-cgi PROFILE:START needs a number, not {start}")
        placement = MigPlacement(int(start), profile.placements[0].size)
        return MigControl().create_gpu_instance(gpu.uuid, profile.id, placement)
    handle = call("nvmlDeviceGetHandleByUUID", gpu.uuid)
    # NVML chooses the placement, which our own control never lets it do.
    made = call("nvmlDeviceCreateGpuInstance", handle, profile.id, device=f"profile {profile.id} on GPU {gpu.index}")
    return int(call("nvmlGpuInstanceGetInfo", made).id)


def _destroy_compute(options: Options, gpus: Sequence[Gpu], out: TextIO) -> int:
    wanted = options.number("-ci")
    for gpu, instance in _chosen(options, gpus):
        for compute in instance.compute_instances:
            if wanted in (None, compute.id):
                MigControl().destroy_compute_instance(gpu.uuid, instance.id, compute.id)
                out.write(
                    f"Successfully destroyed compute instance ID {compute.id:>2} from GPU {gpu.index:>2}"
                    f" GPU instance ID {instance.id:>2}\n"
                )
    return 0


def _destroy_instance(options: Options, gpus: Sequence[Gpu], out: TextIO) -> int:
    for gpu, instance in _chosen(options, gpus):
        MigControl().destroy_gpu_instance(gpu.uuid, instance.id)
        out.write(f"Successfully destroyed GPU instance ID {instance.id:>2} from GPU {gpu.index:>2}\n")
    return 0


_ACTION = {
    "-lgip": _list_profiles,
    "-lgi": _list_instances,
    "-lci": _list_compute,
    "-cgi": _create,
    "-dci": _destroy_compute,
    "-dgi": _destroy_instance,
}


def _gpus(options: Options, reading: Reading) -> tuple[Gpu, ...]:
    """Those named by ``-i``, else all that have MIG."""
    gpus = options.gpus(reading.machine)
    return gpus if "-i" in options.given else tuple(gpu for gpu in gpus if gpu.mig is not None)


def _chosen(options: Options, gpus: Sequence[Gpu]) -> Iterator[tuple[Gpu, GpuInstance]]:
    wanted = options.number("-gi")
    for gpu in gpus:
        for instance in _instances(gpu):
            if wanted in (None, instance.id):
                yield gpu, instance


def _instances(gpu: Gpu) -> tuple[GpuInstance, ...]:
    return () if gpu.mig is None else gpu.mig.instances


def _profiles(gpu: Gpu) -> tuple[MigProfile, ...]:
    return () if gpu.mig is None else gpu.mig.profiles


def _profile(gpu: Gpu, name: str) -> MigProfile:
    for profile in _profiles(gpu):
        if name.removeprefix("MIG ") in (profile.name, str(profile.id)):
            return profile
    raise NotUnderstood(f"GPU {gpu.index} has no GPU instance profile {name}; see nvidia-smi mig -lgip")


def _free(gpu: Gpu, profile: MigProfile) -> int:
    if gpu.mig is None or not gpu.mig.enabled:
        return 0
    handle = call("nvmlDeviceGetHandleByUUID", gpu.uuid)
    return int(call("nvmlDeviceGetGpuInstanceRemainingCapacity", handle, profile.id, device=gpu.uuid))


def _table(heading: Sequence[str], rows: Sequence[str], width: int) -> Iterator[str]:
    line = f"+{'-' * width}+\n"
    yield line
    yield from (f"| {each:<{width - 1}}|\n" for each in heading)
    yield f"|{'=' * width}|\n"
    yield from (f"|{each:<{width}}|\n" for each in rows)
    yield line
