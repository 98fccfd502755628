"""What the simulated nvidia-smi shows on a node: list, versions, table and log.

The commands only choose; what is printed is ``layout`` and ``log_layout``, which containers get as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from dra_driver.hardware.nvml import Reading
from dra_driver.simulation.hardware.smi import layout, log_layout
from dra_driver.simulation.hardware.smi.facts import GpuFacts
from dra_driver.simulation.hardware.smi.from_nvml import gpu_facts, versions
from dra_driver.simulation.hardware.smi.layout import filled
from dra_driver.simulation.hardware.smi.log_layout import Section
from dra_driver.simulation.hardware.smi.options import NoSuchGpu, NotUnderstood, Options


def list_gpus(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    """``-L``"""
    for gpu, texts in shown(Options.parse(words, values=("-i",), flags=("-L",)), reading):
        out.write(filled(layout.LIST_GPU, texts))
        for device in gpu.mig_devices:
            out.write(filled(layout.LIST_MIG, layout.device_texts(device)))
    return 0


def version(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    """``--version``"""
    Options.parse(words, values=(), flags=("--version",))
    out.write(filled(layout.VERSION, _machine(reading)))
    return 0


def table(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    """Without a command."""
    found = shown(Options.parse(words, values=("-i",)), reading)
    out.write(filled(layout.TABLE_HEAD, _machine(reading)))
    for _, texts in found:
        out.write(filled(layout.GPU_ROWS, texts))
    if any(gpu.mig for gpu, _ in found):
        out.write(filled(layout.MIG_HEAD, {}))
        rows = [
            filled(layout.MIG_ROWS, {**texts, **layout.device_texts(each)})
            for gpu, texts in found
            for each in gpu.mig_devices
        ]
        out.write("".join(rows) or filled(layout.NO_MIG_ROWS, {}))
    out.write(filled(layout.PROCESS_HEAD, {}))
    processes = [
        layout.PROCESS_ROW.filled({**texts, **layout.process_texts(each)})
        for gpu, texts in found
        for each in gpu.processes
    ]
    out.write("".join(processes) or layout.NO_PROCESS_ROW.filled({}))
    out.write(layout.PROCESS_END.filled({}))
    return 0


def log(words: Sequence[str], reading: Reading, out: TextIO, _err: TextIO) -> int:
    """``-q``, and ``-d`` for some of its sections."""
    options = Options.parse(words, values=("-i", "-d"), flags=("-q",))
    wanted = _wanted(options.given.get("-d"))
    found = shown(options, reading)
    out.write(filled(log_layout.LOG_HEAD, _machine(reading)))
    for gpu, texts in found:
        out.write(log_layout.LOG_GPU.filled(texts))
        out.write("".join(_log_of(gpu, texts, wanted)))
        out.write(log_layout.LOG_END.filled({}))
    return 0


def _log_of(gpu: GpuFacts, texts: Mapping[str, str], wanted: frozenset[str | None]) -> Iterator[str]:
    def some(sections: Sequence[Section], texts: Mapping[str, str]) -> Iterator[str]:
        return (filled(each.lines, texts) for each in sections if each.name in wanted)

    yield from some(log_layout.BEFORE_MIG_DEVICES, texts)
    for device in gpu.mig_devices:
        yield from some((log_layout.MIG_DEVICE,), layout.device_texts(device))
    yield from some(log_layout.AFTER_MIG_DEVICES, texts)
    if not gpu.processes:
        yield from some((log_layout.NO_PROCESSES,), {})
    elif log_layout.PROCESSES in wanted:
        yield log_layout.PROCESS_HEAD.filled({})
        for process in gpu.processes:
            yield from some((log_layout.PROCESS,), layout.process_texts(process))


def _wanted(display: str | None) -> frozenset[str | None]:
    if display is None:
        return frozenset((None, *log_layout.DISPLAYS))
    names = display.split(",")
    for name in names:
        if name not in log_layout.DISPLAYS:
            raise NotUnderstood(f"simulated nvidia-smi has no section {name}; -d takes {','.join(log_layout.DISPLAYS)}")
    return frozenset(names)


def _machine(reading: Reading) -> dict[str, str]:
    """What there is to say of the whole machine, now."""
    now = time.time()
    local = time.localtime(now)
    count = len(reading.machine.gpus) + len(reading.problems)
    return layout.machine_texts(
        versions(reading.machine),
        count=count,
        timestamp=f"{time.strftime('%Y/%m/%d %H:%M:%S', local)}.{int(now * 1000) % 1000:03}",
        date=time.strftime("%a %b %e %H:%M:%S %Y", local),
    )


def shown(options: Options, reading: Reading) -> list[tuple[GpuFacts, dict[str, str]]]:
    """The GPUs that the options mean, with what there is to say of them. NoSuchGpu when there is none."""
    if not reading.machine.gpus and not reading.problems:
        raise NoSuchGpu("this machine has no GPU")
    whole = _machine(reading)
    facts = [gpu_facts(gpu) for gpu in options.gpus(reading.machine)]
    return [(gpu, layout.gpu_texts(gpu, whole)) for gpu in facts]
