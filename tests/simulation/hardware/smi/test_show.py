"""What the simulated nvidia-smi prints, taken apart as people's scripts do, and drawn as the real one does."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from dra_driver.hardware.nvml.codes import Return
from dra_driver.simulation.hardware import StateFile, faults, load_machine, recorded_machines
from dra_driver.simulation.hardware.smi.fields import APP_FIELDS, GPU_FIELDS
from dra_driver.simulation.hardware.state import GpuState
from tests.simulation.hardware.smi.kit import build, call_smi


class Node:
    def __init__(self, folder: Path, machine: str) -> None:
        _, self.state_file = build(folder, machine)

    @property
    def gpus(self) -> tuple[GpuState, ...]:
        return StateFile(self.state_file).read().gpus

    def call(self, line: str) -> str:
        code, out, err = call_smi(str(self.state_file), *line.split())
        assert (code, err) == (0, ""), line
        return out

    def change(self, index: int, **changes: object) -> None:
        StateFile(self.state_file).update(
            lambda state: state.with_gpu(index, state.gpus[index].model_copy(update=changes))
        )


@pytest.fixture
def h100(tmp_path: Path) -> Node:
    return Node(tmp_path, "h100-sxm5-80gb")


# -- queries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recorded_machines())
def test_memory_as_a_number(tmp_path: Path, name: str) -> None:
    node, hardware = Node(tmp_path, name), load_machine(name).hardware
    lines = node.call("--query-gpu=memory.total --format=csv,noheader,nounits").splitlines()
    expected = [(hardware.product_of(index).memory_bytes or 0) >> 20 for index in range(len(hardware.gpus))]
    assert [int(line) for line in lines] == expected


def test_a_query_with_its_heading(h100: Node) -> None:
    fields = "index,gpu_name,gpu_uuid,gpu_bus_id,memory.total,utilization.gpu,temperature.gpu,power.draw,power.limit,clocks.sm"
    heading, row = h100.call(f"--query-gpu={fields} --format=csv -i 0").splitlines()
    assert heading == (
        "index, name, uuid, pci.bus_id, memory.total [MiB], utilization.gpu [%], temperature.gpu, power.draw [W], "
        "power.limit [W], clocks.current.sm [MHz]"
    )
    uuid = h100.gpus[0].uuid
    assert row == (
        f"0, NVIDIA H100 80GB HBM3, {uuid}, 00000000:18:00.0, 81559 MiB, 0 %, 29, 105.00 W, 700.00 W, 345 MHz"
    )


def test_units_go_from_values_and_stay_in_the_heading(h100: Node) -> None:
    assert h100.call("--query-gpu=memory.used,fan.speed,power.limit,pstate --format=csv,nounits -i 3") == (
        "memory.used [MiB], fan.speed [%], power.limit [W], pstate\n0, [N/A], 700.00, P0\n"
    )


def test_memory_adds_up(h100: Node) -> None:
    line = h100.call(
        "--query-gpu=memory.total,memory.reserved,memory.used,memory.free --format=csv,noheader,nounits -i 0"
    )
    total, reserved, used, free = map(int, line.split(", "))
    assert abs(total - reserved - used - free) <= 1, "each is rounded down"


@pytest.mark.parametrize(
    ("mode", "in_csv", "in_table"),
    [(0, "Default", "Default"), (3, "Exclusive_Process", "E. Process"), (2, "Prohibited", "Prohibited")],
)
def test_the_compute_mode(h100: Node, mode: int, in_csv: str, in_table: str) -> None:
    h100.change(1, compute_mode=mode)
    assert h100.call("--query-gpu=compute_mode --format=csv,noheader -i 1") == f"{in_csv}\n"
    assert h100.call("--query-gpu=compute_mode --format=csv,noheader -i 0") == "Default\n"
    assert f"0% {in_table:>12} |" in h100.call("-i 1")
    assert re.search(rf"Compute Mode +: {in_csv}\n", h100.call("-q -d COMPUTE -i 1"))


def test_gpus_are_named_by_index_uuid_and_bus_id(h100: Node) -> None:
    query = "--query-gpu=index --format=csv,noheader --id="
    for name in (h100.gpus[2].uuid, "00000000:3A:00.0", "0000:3a:00.0", "2"):
        assert h100.call(query + name) == "2\n"
    assert h100.call(f"{query}5,{h100.gpus[1].uuid},5") == "1\n5\n"


def test_every_field_can_be_asked_by_each_of_its_names(h100: Node) -> None:
    listed = re.findall(r'"([^"]+)"', h100.call("--help-query-gpu").split("\n", 1)[1])
    assert listed == [name for field in GPU_FIELDS for name in (field.name, *field.aliases)]
    assert len(set(listed)) == len(listed)
    rows = list(
        csv.reader(io.StringIO(h100.call(f"--query-gpu={','.join(listed)} --format=csv")), skipinitialspace=True)
    )
    assert {len(row) for row in rows} == {len(listed)}
    assert len(rows) == 9
    assert all(cell for row in rows for cell in row)


def test_the_time_of_a_query(h100: Node) -> None:
    assert re.fullmatch(
        r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3}\n", h100.call("--query-gpu=timestamp --format=csv,noheader -i 0")
    )


def test_an_unknown_field_is_refused_as_the_real_one_does(h100: Node) -> None:
    """On stdout, with an empty line; as in CoHDI/composable-resource-operator#37."""
    assert call_smi(str(h100.state_file), "--query-gpu=name,cuda_version", "--format=csv") == (
        2,
        'Field "cuda_version" is not a valid field to query.\n\n',
        "",
    )


def test_what_a_driver_lacks_is_not_available(h100: Node) -> None:
    for function in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature", "nvmlDeviceGetMemoryInfo_v2"):
        faults.hide_function(h100.state_file, function)
    query = "--query-gpu=utilization.gpu,temperature.gpu,memory.used,name --format=csv,noheader,nounits -i 0"
    assert h100.call(query) == "[N/A], [N/A], [N/A], NVIDIA H100 80GB HBM3\n"


def test_a_gpu_that_fails_is_the_exit_code(h100: Node) -> None:
    faults.inject_error(h100.state_file, "nvmlDeviceGetTemperature", Return.UNKNOWN, gpu=1)
    code, _, err = call_smi(str(h100.state_file), "--query-gpu=name", "--format=csv")
    assert code == 255
    assert "nvmlDeviceGetTemperature" in err


def test_a_lost_gpu_is_told_after_the_others(h100: Node) -> None:
    faults.lose_gpu(h100.state_file, 4)
    for words in ((), ("-q",), ("--query-gpu=index,count", "--format=csv,noheader")):
        code, out, err = call_smi(str(h100.state_file), *words)
        assert code == 15
        assert "Unable to determine the device handle for GPU 4" in err
        assert out
    assert out.splitlines()[4] == "5, 8"


# -- processes ---------------------------------------------------------------------------------------------------------


def test_processes_by_gpu_and_mig_device(h100: Node) -> None:
    assert h100.call("-i 0 -mig 1")
    assert h100.call("mig -i 0 -cgi 9 -C")
    device = next(compute.uuid for _, compute in h100.gpus[0].mig_devices())
    faults.add_client(h100.state_file, device, pid=4001)
    faults.add_client(h100.state_file, h100.gpus[2].uuid, pid=2**22 + 1)  # beyond the kernel's highest pid
    names = ",".join(field.name for field in APP_FIELDS)
    rows = list(csv.reader(io.StringIO(h100.call(f"--query-compute-apps={names} --format=csv")), skipinitialspace=True))
    assert rows[0][-3:] == ["pid", "process_name", "used_gpu_memory [MiB]"]
    assert [(row[3], row[4], row[6]) for row in rows[1:]] == [
        (h100.gpus[0].uuid, "4001", "0 MiB"),
        (h100.gpus[2].uuid, str(2**22 + 1), "0 MiB"),
    ]
    assert rows[2][5] == "[Not Found]"
    assert h100.call("--query-compute-apps=pid --format=csv,noheader -i 2") == f"{2**22 + 1}\n"
    table = h100.call("")
    assert "No running processes found" not in table
    assert re.search(r"^\|    0    1    0 +4001 +C ", table, flags=re.MULTILINE)
    assert f"|    2  N/A  N/A {2**22 + 1:>16}      C   [Not Found]                               0MiB |\n" in table
    assert "No running processes found" in h100.call("-i 1")
    assert h100.call("-q -i 2 -d PIDS").splitlines()[-8:-1] == [
        "    Processes",
        "        GPU instance ID               : N/A",
        "        Compute instance ID           : N/A",
        f"        Process ID                    : {2**22 + 1}",
        "            Type                      : C",
        "            Name                      : [Not Found]",
        "            Used GPU Memory           : 0 MiB",
    ]


# -- table -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recorded_machines())
def test_the_table_is_drawn_straight(tmp_path: Path, name: str) -> None:
    node = Node(tmp_path, name)
    if load_machine(name).hardware.products[0].mig_profiles:
        assert "MIG devices" not in node.call("")
        call_smi(str(node.state_file), "-i", "0", "-mig", "1")
        faults.reset_gpu(node.state_file, 0)
        assert "No MIG devices found" in node.call("")
        profile = (load_machine(name).hardware.products[0].mig_profiles or ())[0]
        assert node.call(f"mig -i 0 -cgi {profile.id},{profile.id} -C")
        assert "No MIG devices found" not in node.call("")
    lines = node.call("").splitlines()
    drawn = [line for line in lines if line and line[0] in "|+"]
    assert {len(line) for line in drawn} == {91}
    assert {line[-1] for line in drawn} <= {"|", "+"}
    assert len(lines) - len(drawn) in (2, 3), "the date and what stands between tables"


def test_the_tables_rows(h100: Node) -> None:
    """As driver 580 draws them for H100: Project-HAMi/HAMi#1903 has its columns."""
    assert h100.call("-i 6").splitlines()[1:13] == [
        "+-----------------------------------------------------------------------------------------+",
        "| NVIDIA-SMI 580.105.08             Driver Version: 580.105.08     CUDA Version: 13.0     |",
        "+-----------------------------------------+------------------------+----------------------+",
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        "|                                         |                        |               MIG M. |",
        "|=========================================+========================+======================|",
        "|   6  NVIDIA H100 80GB HBM3          On  |   00000000:BA:00.0 Off |                    0 |",
        "| N/A   31C    P0            119W /  700W |       0MiB /  81559MiB |      0%      Default |",
        "|                                         |                        |             Disabled |",
        "+-----------------------------------------+------------------------+----------------------+",
        " " * 89,
    ]


def test_a_mig_device_in_the_table(h100: Node) -> None:
    """NordicHPC/sonar#247 and others show these columns with driver 570."""
    assert h100.call("-i 0 -mig 1")
    assert h100.call("mig -i 0 -cgi 14,9 -C")
    table = h100.call("").splitlines()
    assert "|  0    1   0   0  |               0MiB / 40448MiB    | 60      0 |  3   0    3    0    3 |" in table
    assert "|  0    3   0   1  |               0MiB / 20096MiB    | 32      0 |  2   0    2    0    2 |" in table
    assert re.search(r"\| +N/A +Default \|", table[9])
    assert table[8].endswith("Off |                   On |")
    assert "MIG devices" not in h100.call("-i 1")


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    node = Node(tmp_path, "rtx-pro-6000")
    assert "|   0  NVIDIA RTX PRO 6000 Blac...    On  |" in node.call("")
    assert "Product Name                                   : NVIDIA RTX PRO 6000 Blackwell Server Edition" in node.call(
        "-q"
    )


# -- log ---------------------------------------------------------------------------------------------------------------


def attributes(log: str) -> dict[str, str]:
    """By path, as people grep them with -A: "FB Memory Usage/Total"."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in log.splitlines():
        label, colon, value = line.partition(" : ")
        depth = (len(line) - len(line.lstrip())) // 4
        path = [*path[:depth], label.strip()]
        if colon:
            found["/".join(path[1:] or path)] = value
    return found


def test_what_people_grep_in_the_log(h100: Node) -> None:
    log = h100.call("-q -i 3")
    assert log.startswith("\n==============NVSMI LOG==============\n\nTimestamp  ")
    found = attributes(log)
    expected = {
        "Driver Version": "580.105.08",
        "CUDA Version": "13.0",
        "Attached GPUs": "8",
        "Product Name": "NVIDIA H100 80GB HBM3",
        "Product Brand": "NVIDIA",
        "Product Architecture": "Hopper",
        "Persistence Mode": "Enabled",
        "MIG Mode/Current": "Disabled",
        "MIG Mode/Pending": "Disabled",
        "Serial Number": h100.gpus[3].serial,
        "GPU UUID": h100.gpus[3].uuid,
        "Minor Number": "3",
        "PCI/Bus Id": "00000000:5D:00.0",
        "PCI/Device Id": "0x233010DE",
        "Performance State": "P0",
        "FB Memory Usage/Total": "81559 MiB",
        "FB Memory Usage/Used": "0 MiB",
        "BAR1 Memory Usage/Total": "131072 MiB",
        "Compute Mode": "Default",
        "Utilization/GPU": "0 %",
        "ECC Mode/Current": "Enabled",
        "Temperature/GPU Current Temp": "32 C",
        "GPU Power Readings/Current Power Limit": "700.00 W",
        "Clocks/SM": "345 MHz",
        "Max Clocks/Memory": "2619 MHz",
        "Processes": "None",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert len(h100.call("-q").split("\nGPU 0000")) == 9


def test_mig_devices_in_the_log(h100: Node) -> None:
    h100.call("-i 0 -mig 1")
    h100.call("mig -i 0 -cgi 9 -C")
    found = attributes(h100.call("-q -i 0"))
    assert found["MIG Mode/Current"] == "Enabled"
    assert found["MIG Device/GPU Instance ID"] == "1"
    assert found["MIG Device/Device Attributes/Shared/Multiprocessor count"] == "60"
    assert found["MIG Device/FB Memory Usage/Total"] == "40448 MiB"
    assert found["MIG Device/BAR1 Memory Usage/Total"] == "65536 MiB"
    assert found["Utilization/GPU"] == "N/A"


def test_sections_of_the_log(h100: Node) -> None:
    found = attributes(h100.call("-q -i 0 -d MEMORY,UTILIZATION,ECC,COMPUTE"))
    assert [name for name in found if "Memory Usage" not in name] == [
        "Timestamp",
        "Driver Version",
        "CUDA Version",
        "Attached GPUs",
        "Compute Mode",
        "Utilization/GPU",
        "Utilization/Memory",
        "ECC Mode/Current",
        "ECC Mode/Pending",
        "ECC Errors/Volatile/DRAM Uncorrectable",
    ]
    for section in ("TEMPERATURE", "POWER", "CLOCK", "PIDS", "PERFORMANCE"):
        assert attributes(h100.call(f"-q -d {section} -i 0")).keys() - found.keys()
