"""Calls every function on states with mistakes in them: ``python -m tests.simulation.nvml_c.mistakes FOLDER``.

A process of its own, since the worst that a library can do is to end it. It prints how many states it went through.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
from pathlib import Path
from typing import Any

import pynvml

from dra_driver.simulation.hardware.library import FUNCTIONS
from tests.simulation.nvml_c.signatures import READING, ways
from tests.simulation.nvml_c.test_reading import handles_of, with_mig
from tests.simulation.nvml_c.twins import Twins, behind

STATES = 150
VALUES: tuple[Any, ...] = (None, 0, -1, 2**63 - 1, 1e300, "", "x" * 5000, "%s%n", [], {}, True, [[[]]], [None], {"": 1})


def mutate(value: Any, chance: random.Random) -> None:
    """Replace one of the values in it, anywhere, or leave it out."""
    while isinstance(value, dict | list) and value:
        key: Any = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        if not isinstance(value[key], dict | list) or not value[key] or chance.random() < 0.1:
            if chance.random() < 0.2:
                del value[key]
            else:
                value[key] = chance.choice(VALUES)
            return
        value = value[key]


def text_with_mistakes(whole: str, chance: random.Random, *, broken: bool) -> str:
    state = json.loads(whole)
    for _ in range(chance.choice((1, 1, 3, 30))):
        mutate(state, chance)
    text = json.dumps(state)
    if not broken:
        return text
    cut = chance.randrange(len(text))
    return text[:cut] + chance.choice(('"', "\\", "}", "", "\\u12", "9" * 400)) + text[cut + chance.randrange(3) :]


def call_everything(library: Any, handles: list[Any]) -> None:
    for function, values in READING.items():
        way = next(ways(values))
        for make in [behind(each, way) for each in handles] if FUNCTIONS[function].kinds else [way]:
            getattr(library, function)(*make().passed)
    made, event, types = ctypes.c_void_p(), pynvml.c_nvmlEventData_t(), ctypes.c_ulonglong(0x108)
    for handle in handles:
        library.nvmlDeviceSetComputeMode(handle, 3)
        library.nvmlDeviceSetMigMode(handle, 1, ctypes.byref(ctypes.c_uint()))
        library.nvmlDeviceCreateGpuInstance(handle, 14, ctypes.byref(made))
        library.nvmlGpuInstanceCreateComputeInstance(handle, 0, ctypes.byref(made))
        library.nvmlComputeInstanceDestroy(handle)
        library.nvmlGpuInstanceDestroy(handle)
        for events in handles:
            library.nvmlDeviceRegisterEvents(handle, types, events)
        library.nvmlEventSetWait_v2(handle, ctypes.byref(event), 0)


def main(folder: Path) -> None:
    twins = Twins(folder, with_mig("a30"))
    twins.start()
    handles = handles_of(twins)
    path, whole = twins.c.state_file, twins.c.state_file.read_text()
    for seed in range(STATES):
        path.with_name("new").write_text(text_with_mistakes(whole, random.Random(seed), broken=seed % 10 == 0))
        path.with_name("new").rename(path)
        call_everything(twins.library, handles)
    print(STATES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
