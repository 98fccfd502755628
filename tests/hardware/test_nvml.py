"""NvmlHardware on simulated machines: what it reads, and how every failure looks to those above."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dra_driver.errors import HardwareError, HardwareUnavailable
from dra_driver.hardware.model import Machine, MigPlacement
from dra_driver.hardware.nvml import MigControl, NvmlCallError, NvmlHardware, Reading, library
from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import MachineDescription, create_state, faults, load_machine, recorded_machines
from dra_driver.simulation.hardware.description import MigDescription, MigInstanceDescription
from tests.simulated_node import NodeMaker

MACHINES = recorded_machines()


@pytest.mark.parametrize("name", MACHINES)
def test_every_recorded_machine_is_read_as_it_is_described(make_node: NodeMaker, name: str) -> None:
    hardware = load_machine(name).hardware
    node = make_node(name)
    reading = node.hardware.read()
    machine = reading.machine
    assert reading.problems == ()
    assert machine.driver_version == hardware.driver_version
    assert machine.cuda_driver_version == hardware.cuda_driver_version
    assert [gpu.pci_bus_id for gpu in machine.gpus] == [gpu.pci_bus_id for gpu in hardware.gpus]
    for gpu, described in zip(machine.gpus, hardware.gpus, strict=True):
        product = hardware.products[described.product]
        assert (gpu.minor, gpu.pcie_root, gpu.numa_node) == (described.minor, described.pcie_root, described.numa_node)
        assert gpu.product_name == product.name
        assert (gpu.brand, gpu.architecture) == (product.brand, product.architecture)
        assert gpu.cuda_compute_capability == product.cuda_compute_capability
        assert (gpu.memory_bytes, gpu.addressing_mode) == (product.memory_bytes, product.addressing_mode)
        assert (gpu.mig is None) == (product.mig_profiles is None)
        if gpu.mig is not None and product.mig_profiles is not None:
            assert not gpu.mig.enabled
            assert not gpu.mig.pending
            assert [(each.id, each.name, each.memory_mib) for each in gpu.mig.profiles] == [
                (each.id, each.name, each.memory_mib) for each in product.mig_profiles
            ]


def test_one_profile_whole(make_node: NodeMaker) -> None:
    machine = make_node("h100-sxm5-80gb").hardware.read_machine()
    mig = machine.gpus[0].mig
    assert mig is not None
    profile = next(each for each in mig.profiles if each.id == 15)
    assert (profile.name, profile.enum_index, profile.slice_count, profile.instance_count) == ("1g.20gb", 9, 1, 4)
    assert (profile.memory_mib, profile.multiprocessors, profile.copy_engines) == (20096, 26, 1)
    assert (profile.decoders, profile.encoders, profile.jpeg_engines, profile.ofa_engines) == (1, 0, 1, 0)
    assert profile.placements == tuple(MigPlacement(start, 2) for start in (0, 2, 4, 6))
    assert not profile.p2p_supported


def test_existing_mig_instances_are_read(make_node: NodeMaker) -> None:
    instances = (MigInstanceDescription(profile=9, start=4), MigInstanceDescription(profile=19, start=0))
    machine = make_node(_with_mig("a100-sxm4-40gb", 2, instances)).hardware.read_machine()
    mig = machine.gpus[2].mig
    assert mig is not None
    assert mig.enabled
    assert mig.pending
    assert [(each.profile_id, each.profile_name, each.placement) for each in mig.instances] == [
        (19, "1g.5gb", MigPlacement(0, 1)),
        (9, "3g.20gb", MigPlacement(4, 4)),
    ]
    compute = [each for instance in mig.instances for each in instance.compute_instances]
    assert [each.slices for each in compute] == [1, 3]
    assert all(each.uuid.startswith("MIG-") for each in compute)
    assert len({each.uuid for each in compute}) == 2
    others = [gpu.mig for gpu in machine.gpus if gpu.minor != 2]
    assert all(other is not None and not other.enabled and not other.instances for other in others)


def test_a_machine_without_gpus_is_valid(make_node: NodeMaker) -> None:
    description = load_machine("t4")
    empty = description.model_copy(update={"hardware": description.hardware.model_copy(update={"gpus": ()})})
    assert make_node(empty).hardware.read_machine() == Machine("580.105.08", 13000, ())


def test_unified_memory_has_no_total(make_node: NodeMaker) -> None:
    machine = make_node(_with_product("t4", memory_bytes=None, addressing_mode=None)).hardware.read_machine()
    assert {gpu.memory_bytes for gpu in machine.gpus} == {None}
    assert {gpu.addressing_mode for gpu in machine.gpus} == {None}


def test_queries_that_an_old_driver_lacks_are_none(make_node: NodeMaker) -> None:
    node = make_node("t4", start=False)
    for function in ("nvmlDeviceGetAddressingMode", "nvmlDeviceGetArchitecture", "nvmlDeviceGetMigMode"):
        faults.hide_function(node.state_file, function)
    node.hardware.start()
    gpu = node.hardware.read_machine().gpus[0]
    assert (gpu.addressing_mode, gpu.architecture, gpu.mig) == (None, "Unknown", None)


def test_a_function_that_must_be_there_is_named(make_node: NodeMaker) -> None:
    node = make_node("t4", start=False)
    faults.hide_function(node.state_file, "nvmlDeviceGetCount_v2")
    node.hardware.start()
    with pytest.raises(NvmlCallError, match="nvmlDeviceGetCount failed: NVML_ERROR_FUNCTION_NOT_FOUND"):
        node.hardware.read()


def test_a_lost_gpu_does_not_hide_the_others(make_node: NodeMaker, caplog: pytest.LogCaptureFixture) -> None:
    node = make_node("a100-sxm4-40gb")
    before = node.hardware.read_machine()
    faults.lose_gpu(node.state_file, 3)
    reading = node.hardware.read()
    assert reading.machine.gpus == tuple(gpu for gpu in before.gpus if gpu.index != 3)
    (problem,) = reading.problems
    assert problem.gone
    assert (problem.index, problem.uuid, problem.pci_bus_id) == (3, before.gpus[3].uuid, before.gpus[3].pci_bus_id)
    assert "GPU 3" in problem.message
    assert "NVML_ERROR_GPU_IS_LOST" in problem.message
    with caplog.at_level(logging.WARNING):
        assert len(node.hardware.read_machine().gpus) == 7
    assert "GPU_IS_LOST" in caplog.text
    faults.clear_faults(node.state_file)
    assert node.hardware.read().machine == before


def test_a_failing_query_is_a_problem_of_its_gpu(make_node: NodeMaker) -> None:
    node = make_node("h100-nvl")
    faults.inject_error(node.state_file, "nvmlDeviceGetMemoryInfo", Return.UNKNOWN, gpu=1)
    reading = node.hardware.read()
    assert [gpu.index for gpu in reading.machine.gpus] == [0]
    (problem,) = reading.problems
    assert not problem.gone
    assert problem.uuid is None
    assert "nvmlDeviceGetMemoryInfo for GPU 1 (GPU-" in problem.message
    assert "NVML_ERROR_UNKNOWN" in problem.message


def test_an_error_in_the_mig_table_is_not_taken_for_no_mig(make_node: NodeMaker) -> None:
    node = make_node("a30")
    faults.inject_error(node.state_file, "nvmlDeviceGetGpuInstancePossiblePlacements_v2", Return.NO_PERMISSION, gpu=0)
    reading = node.hardware.read()
    assert [gpu.index for gpu in reading.machine.gpus] == [1]
    assert "privileged" in reading.problems[0].message


def test_a_table_of_profiles_is_read_once_for_as_long_as_nvml_runs(make_node: NodeMaker) -> None:
    node = make_node("a30")
    before = node.hardware.read_machine()
    for function in ("nvmlDeviceGetGpuInstanceProfileInfoV", "nvmlDeviceGetGpuInstancePossiblePlacements_v2"):
        faults.inject_error(node.state_file, function, Return.UNKNOWN)
    assert node.hardware.read() == Reading(before)
    node.hardware.stop()
    node.hardware.start()
    assert [problem.index for problem in node.hardware.read().problems] == [0, 1], "another driver may have other ones"


def test_another_mig_mode_may_have_another_table(make_node: NodeMaker) -> None:
    """Drivers before 550 list no profiles with the mode off."""
    node = make_node("h100-sxm5-80gb")
    faults.inject_error(node.state_file, "nvmlDeviceGetGpuInstanceProfileInfoV", Return.NOT_SUPPORTED)
    assert node.hardware.read_machine().gpus[0].mig is None
    faults.clear_faults(node.state_file)
    MigControl().set_mode(node.file.read().gpus[0].uuid, True)
    mig = node.hardware.read_machine().gpus[0].mig
    assert mig is not None
    assert mig.profiles


def test_a_code_that_we_do_not_know_is_still_said(make_node: NodeMaker) -> None:
    node = make_node("t4")
    faults.inject_error(node.state_file, "nvmlDeviceGetName", 77, gpu=0)
    assert "NVML error 77" in node.hardware.read().problems[0].message


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (Return.DRIVER_NOT_LOADED, "kernel module"),
        (Return.LIB_RM_VERSION_MISMATCH, "a process that has the old library must start again"),
        (Return.NO_PERMISSION, "privileged"),
        (Return.UNKNOWN, ""),
    ],
)
def test_nvml_that_does_not_start_is_unavailable(make_node: NodeMaker, code: Return, hint: str) -> None:
    node = make_node("t4", start=False)
    faults.inject_error(node.state_file, "nvmlInitWithFlags", code, times=1)
    with pytest.raises(HardwareUnavailable, match=f"NVML_ERROR_{code.name}") as caught:
        node.hardware.start()
    assert hint in caught.value.hint
    node.hardware.start()  # a failed start may be tried again
    assert len(node.hardware.read_machine().gpus) == 4


def test_a_lost_library_is_unavailable(make_node: NodeMaker) -> None:
    node = make_node("t4", start=False)
    faults.lose_library(node.state_file)
    with pytest.raises(HardwareUnavailable, match=r"LIBRARY_NOT_FOUND.*install the NVIDIA driver"):
        node.hardware.start()


def test_reading_before_the_start_and_after_the_stop(make_node: NodeMaker) -> None:
    hardware = make_node("t4", start=False).hardware
    with pytest.raises(HardwareUnavailable, match=r"NVML_ERROR_UNINITIALIZED.*start\(\)"):
        hardware.read()
    hardware.stop()
    hardware.start()
    hardware.start()
    hardware.stop()
    hardware.stop()
    with pytest.raises(HardwareUnavailable, match="NVML_ERROR_UNINITIALIZED"):
        hardware.read()


@pytest.mark.usefixtures("no_library")
def test_a_driver_root_without_a_library_names_every_place(tmp_path: Path) -> None:
    with pytest.raises(HardwareUnavailable) as caught:
        NvmlHardware(driver_root=tmp_path).start()
    for folder in ("usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib64"):
        assert f"{tmp_path}/{folder}/libnvidia-ml.so.1" in str(caught.value)
    assert "driver root" in caught.value.hint


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize("driver_root", [None, Path("/")])
def test_without_a_driver_root_the_linker_is_asked_first(
    driver_root: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "LIBRARY", "libnvidia-ml-that-is-nowhere.so.1")
    with pytest.raises(HardwareUnavailable) as caught:
        NvmlHardware(driver_root=driver_root).start()
    assert "/usr/lib64/libnvidia-ml-that-is-nowhere.so.1" in caught.value.message
    assert "the dynamic linker says: libnvidia-ml-that-is-nowhere.so.1: cannot open" in caught.value.message


@pytest.mark.usefixtures("no_library")
def test_a_library_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    create_state("t4", tmp_path / "state.json")
    library = tmp_path / "root/usr/lib64/libnvidia-ml.so.580.105.08"
    library.parent.mkdir(parents=True)
    library.write_text("not a library")
    # Absolute links of the node are followed inside the driver root.
    (library.parent / "libnvidia-ml.so.1").symlink_to("/usr/lib64/libnvidia-ml.so.580.105.08")
    with pytest.raises(HardwareUnavailable, match=f"cannot load {library}.*invalid ELF header|file too short"):
        NvmlHardware(driver_root=tmp_path / "root").start()


@pytest.mark.usefixtures("no_library")
def test_a_library_without_its_usual_link_is_found(tmp_path: Path) -> None:
    """A driver installer that did not run ldconfig leaves only the versioned file."""
    found = tmp_path / "usr/lib64/libnvidia-ml.so.545.23.08"
    found.parent.mkdir(parents=True)
    found.write_text("not a library")
    with pytest.raises(HardwareUnavailable, match=f"cannot load {found}"):
        NvmlHardware(driver_root=tmp_path).start()


@pytest.mark.usefixtures("no_library")
def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    """NixOS' /run/opengl-driver: its links lead to /nix/store, outside of it."""
    link = tmp_path / "lib/libnvidia-ml.so.1"
    link.parent.mkdir()
    link.symlink_to("/nix/store/driver/lib/libnvidia-ml.so.1")
    with pytest.raises(HardwareUnavailable, match=f"; {link} leads by links to no file inside that root"):
        NvmlHardware(driver_root=tmp_path).start()
    link.unlink()
    link.symlink_to(link.name)
    with pytest.raises(HardwareUnavailable, match=f"; {link} leads by links to no file inside that root"):
        NvmlHardware(driver_root=tmp_path).start()


def test_the_file_that_the_library_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mappings = tmp_path / "maps"
    monkeypatch.setattr(library, "_MAPPINGS", mappings)
    assert library.loaded_library() is None
    mappings.write_text(
        "7f00-7f10 r--p 00000000 08:01 42                         /usr/lib64/libc.so.6\n"
        "7f10-7f20 rw-p 00000000 00:00 0 \n"
        "7f20-7f30 r--p 00000000 08:01 43                         /opt/my driver/libnvidia-ml.so.580.105.08\n"
    )
    assert library.loaded_library() == Path("/opt/my driver/libnvidia-ml.so.580.105.08")
    mappings.write_text("7f20-7f30 r--p 00000000 08:01 43   /opt/lib/libnvidia-ml.so.580.105.08 (deleted)\n")
    assert library.loaded_library() == Path("/opt/lib/libnvidia-ml.so.580.105.08")


def test_a_state_file_that_disappears_is_unavailable(make_node: NodeMaker) -> None:
    node = make_node("t4")
    node.state_file.unlink()
    with pytest.raises(HardwareError, match="cannot read simulated hardware"):
        node.hardware.read()


def _with_product(name: str, **changes: object) -> MachineDescription:
    description = load_machine(name)
    product = description.hardware.products[0].model_copy(update=changes)
    hardware = description.hardware.model_copy(update={"products": (product,)})
    return description.model_copy(update={"hardware": hardware})


def _with_mig(name: str, index: int, instances: tuple[MigInstanceDescription, ...]) -> MachineDescription:
    description = load_machine(name)
    gpus = list(description.hardware.gpus)
    gpus[index] = gpus[index].model_copy(update={"mig": MigDescription(enabled=True, instances=instances)})
    hardware = description.hardware.model_copy(update={"gpus": tuple(gpus)})
    return description.model_copy(update={"hardware": hardware})
