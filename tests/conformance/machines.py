"""The machines on which NVIDIA's driver was recorded, as our hardware model sees them.

Written by hand from the profiles of the mock NVML that the recording used (8 GPUs each, no MIG, no addressing mode,
no sysfs data unless said), so the comparison starts from the hardware and not from the recorded answer. For the
recordings with MIG, its answers came from tables of ``nvidia-smi mig -lgip``, which are here as they were used.
"""

from __future__ import annotations

from dataclasses import replace

from dra_driver.hardware.model import (
    ComputeInstance,
    Gpu,
    GpuInstance,
    Machine,
    MigPlacement,
    MigProfile,
    MigState,
)

_GIB = 2**30


def _machine(template: Gpu, bus_ids: str, uuid: str, driver: str, cuda: int) -> Machine:
    gpus = tuple(
        replace(template, index=number, minor=number, uuid=f"{uuid}{number}", pci_bus_id=f"0000:{bus}:00.0")
        for number, bus in enumerate(bus_ids.split())
    )
    return Machine(driver_version=driver, cuda_driver_version=cuda, gpus=gpus)


def with_bus_ids_reversed(machine: Machine) -> Machine:
    """The same GPUs in each other's places: no longer do names and bus ids sort alike."""
    bus_ids = [gpu.pci_bus_id for gpu in machine.gpus][::-1]
    gpus = (replace(gpu, pci_bus_id=bus_id) for gpu, bus_id in zip(machine.gpus, bus_ids, strict=True))
    return replace(machine, gpus=tuple(gpus))


def _template(product: str, architecture: str, capability: str, memory_gib: int) -> Gpu:
    return Gpu(
        index=0,
        minor=0,
        uuid="",
        product_name=product,
        brand="Nvidia",
        architecture=architecture,
        cuda_compute_capability=capability,
        pci_bus_id="",
        memory_bytes=memory_gib * _GIB,
    )


A100 = _machine(
    _template("NVIDIA A100-SXM4-40GB", "Ampere", "8.0", 40),
    "07 0f 47 4e 87 90 b7 bd",
    "GPU-12345678-1234-1234-1234-12345678000",
    "550.163.01",
    12040,
)
H100 = _machine(
    _template("NVIDIA H100 80GB HBM3", "Hopper", "9.0", 80),
    "1a 1b 4a 4b 8a 8b ca cb",
    "GPU-01000100-0000-0000-0000-00000000000",
    "550.163.01",
    12040,
)
GB200 = _machine(
    _template("NVIDIA GB200", "Blackwell", "10.0", 192),
    "0a 0b 4a 4b 8a 8b ca cb",
    "GPU-b200b200-0000-0000-0000-00000000000",
    "580.65.06",
    13000,
)
GB300 = _machine(
    _template("NVIDIA GB300 NVL", "Blackwell", "10.0", 288),
    "0a 0b 4a 4b 8a 8b ca cb",
    "GPU-b300b300-0000-0000-0000-00000000000",
    "570.124.06",
    12080,
)
# With sysfs: one PCI root, GPUs 0 to 3 on NUMA node 0 and 4 to 7 on node 1.
H100_WITH_SYSFS = replace(
    H100,
    gpus=tuple(replace(gpu, pcie_root="pci0000:00", numa_node=gpu.minor // 4) for gpu in H100.gpus),
)


def _profile(
    name: str, number: int, slices: int, instances: int, memory_mib: int, engines: str, size: int, starts: str
) -> MigProfile:
    """``engines``: multiprocessors, copy engines, decoders, encoders, JPEG, OFA."""
    multiprocessors, copy, decoders, encoders, jpeg, ofa = map(int, engines.split())
    return MigProfile(
        name=name,
        id=number,
        enum_index=0,  # nothing that is published depends on it
        slice_count=slices,
        instance_count=instances,
        memory_mib=memory_mib,
        multiprocessors=multiprocessors,
        copy_engines=copy,
        decoders=decoders,
        encoders=encoders,
        jpeg_engines=jpeg,
        ofa_engines=ofa,
        placements=tuple(MigPlacement(int(start), size) for start in starts.split()),
    )


_H100_PROFILES = (
    _profile("1g.10gb", 19, 1, 7, 9984, "16 1 1 0 1 0", 1, "0 1 2 3 4 5 6"),
    _profile("1g.10gb+me", 20, 1, 1, 9984, "16 1 1 0 1 1", 1, "0 1 2 3 4 5 6"),
    _profile("1g.20gb", 15, 1, 4, 20096, "26 1 1 0 1 0", 2, "0 2 4 6"),
    _profile("2g.20gb", 14, 2, 3, 20096, "32 2 2 0 2 0", 2, "0 2 4"),
    _profile("3g.40gb", 9, 3, 2, 40448, "60 3 3 0 3 0", 4, "0 4"),
    _profile("4g.40gb", 5, 4, 1, 40448, "64 4 4 0 4 0", 4, "0"),
    _profile("7g.80gb", 0, 7, 1, 81152, "132 8 7 0 7 1", 8, "0"),
)
_A100_PROFILES = (
    _profile("1g.5gb", 19, 1, 7, 4864, "14 1 0 0 0 0", 1, "0 1 2 3 4 5 6"),
    _profile("1g.5gb+me", 20, 1, 1, 4864, "14 1 1 0 1 1", 1, "0 1 2 3 4 5 6"),
    _profile("1g.10gb", 15, 1, 4, 9856, "14 1 1 0 0 0", 2, "0 2 4 6"),
    _profile("2g.10gb", 14, 2, 3, 9984, "28 2 1 0 0 0", 2, "0 2 4"),
    _profile("3g.20gb", 9, 3, 2, 20096, "42 3 2 0 0 0", 4, "0 4"),
    _profile("4g.20gb", 5, 4, 1, 20096, "56 4 2 0 0 0", 4, "0"),
    _profile("7g.40gb", 0, 7, 1, 40448, "98 7 5 0 1 1", 8, "0"),
)
_Instances = dict[int, list[tuple[str, int, str]]]


def _with_mig(machine: Machine, profiles: tuple[MigProfile, ...], instances: _Instances) -> Machine:
    """``instances``: those of each GPU whose MIG mode is on, as profile, start and UUID."""
    by_name = {profile.name: profile for profile in profiles}

    def state(gpu: Gpu) -> MigState:
        enabled = gpu.minor in instances
        return MigState(
            enabled,
            enabled,
            profiles,
            tuple(
                _instance(number, by_name[name], start, uuid)
                for number, (name, start, uuid) in enumerate(instances.get(gpu.minor, ()), 1)
            ),
        )

    return replace(machine, gpus=tuple(replace(gpu, mig=state(gpu)) for gpu in machine.gpus))


def _instance(number: int, profile: MigProfile, start: int, uuid: str) -> GpuInstance:
    placement = MigPlacement(start, profile.placements[0].size)
    compute = ComputeInstance(0, f"MIG-{uuid}", profile.slice_count)
    return GpuInstance(number, profile.id, profile.name, placement, (compute,))


H100_MIG_OFF = _with_mig(H100, _H100_PROFILES, {})
A100_MIG_OFF = _with_mig(A100, _A100_PROFILES, {})
A100_MIG_ON = _with_mig(A100, _A100_PROFILES, {0: [], 1: []})
H100_WITH_INSTANCES = _with_mig(
    H100,
    _H100_PROFILES,
    {
        0: [
            ("3g.40gb", 0, "472fd173-8dff-4360-a119-aa6624dbc3da"),
            ("3g.40gb", 4, "36ff07de-996e-4a75-817b-b1707551f01d"),
        ],
        1: [
            ("1g.10gb", 0, "912a92de-7b9b-4e55-b8ed-e0504e596e17"),
            ("2g.20gb", 2, "2acf058c-b1c3-43fc-8203-0b13e5003594"),
            ("1g.20gb", 4, "bd247d99-7912-4009-8c7c-fd2070570ed2"),
        ],
        2: [],
    },
)
A100_WITH_INSTANCES = _with_mig(
    A100,
    _A100_PROFILES,
    {
        0: [
            ("3g.20gb", 0, "98e57b14-d76b-456d-8123-ebf23f997825"),
            ("3g.20gb", 4, "6d0d0c67-1005-438d-a809-6fcdbac333d1"),
        ],
        1: [
            ("1g.5gb", 0, "77e976c4-e3f0-4833-b37f-9f033669efe2"),
            ("1g.5gb+me", 1, "43a4b603-1a2f-459d-9597-7f4b83dca73a"),
            ("2g.10gb", 2, "79e0d05e-20c7-4e85-aa63-e49e59c58f86"),
        ],
        2: [("7g.40gb", 0, "d9a7a106-aaf4-4575-9bb9-03238e0d3e33")],
    },
)

RECORDINGS: dict[str, Machine] = {
    "slices-a100-nogates.json": A100,
    "slices-h100-nogates.json": H100,
    "slices-h100-sysfs-nogates.json": H100_WITH_SYSFS,
    "slices-gb200-nogates.json": GB200,
    "slices-gb300-nogates.json": GB300,
}

DYNAMIC_MIG_RECORDINGS: dict[str, Machine] = {
    "slices-h100-dynamicmig.json": H100_MIG_OFF,
    "slices-a100-dynamicmig-on01.json": A100_MIG_ON,
    "slices-a100-dynamicmig-off.json": A100_MIG_OFF,
}
STATIC_MIG_RECORDINGS: dict[str, Machine] = {
    "slices-h100-staticmig.json": H100_WITH_INSTANCES,
    "slices-a100-staticmig.json": A100_WITH_INSTANCES,
}
