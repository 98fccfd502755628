"""What the commands of the simulated nvidia-smi have in common: how options are written, which GPUs ``-i`` names.

The real one takes the value of an option as the next word or after ``=``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dra_driver.errors import DriverError
from dra_driver.hardware.model import Gpu, Machine

_LONG = {
    "--id": "-i",
    "--compute-mode": "-c",
    "--list-gpus": "-L",
    "--query": "-q",
    "--display": "-d",
    "--xml-format": "-x",
    "--loop": "-l",
    "--loop-ms": "-lms",
    "--list-gpu-instance-profiles": "-lgip",
    "--list-gpu-instances": "-lgi",
}

# Options of the real one that would change what any of its commands does.
_REFUSED = {
    "-l": "simulated nvidia-smi does not loop (-l); its values change only when somebody changes the machine",
    "-lms": "simulated nvidia-smi does not loop (-lms); its values change only when somebody changes the machine",
    "-x": "simulated nvidia-smi writes no XML (-x); ask for fields with --query-gpu=... --format=csv",
}


class NotUnderstood(DriverError):
    """The options are not among those that are simulated."""


class NoSuchField(DriverError):
    """A query asks for a field that is not simulated, or does not exist."""


class NoSuchGpu(DriverError):
    """The machine has no GPU, or ``-i`` names one that it does not have."""


def option_name(word: str) -> str:
    """The option that ``word`` is, by its short name, and without a value that is written into it."""
    name = word.partition("=")[0]
    return _LONG.get(name, name)


@dataclass(frozen=True, slots=True)
class Options:
    """Options by short name, with their values; "" for one that takes none."""

    given: dict[str, str]

    @classmethod
    def parse(cls, words: Sequence[str], *, values: Collection[str], flags: Collection[str] = ()) -> Options:
        """``values``: the options that take a value; ``flags``: those that take none. NotUnderstood for others."""
        given: dict[str, str] = {}
        left = iter(words)
        for word in left:
            option = option_name(word)
            written = word.partition("=")[2]
            if option in values:
                given[option] = written or next(left, "")
                if not given[option]:
                    raise NotUnderstood(f"{word} needs a value")
            elif option in flags and not written:
                given[option] = ""
            else:
                raise NotUnderstood(_REFUSED.get(option, f"simulated nvidia-smi does not know {word} here"))
        return cls(given)

    def number(self, option: str) -> int | None:
        value = self.given.get(option)
        if value is not None and not value.isdecimal():
            raise NotUnderstood(f"{option} must be a number, not {value}")
        return None if value is None else int(value)

    def gpus(self, machine: Machine) -> tuple[Gpu, ...]:
        """Those named by ``-i`` (index, UUID or bus id, several with commas), else all; in their order. NoSuchGpu."""
        named = self.given.get("-i")
        if named is None:
            return machine.gpus
        chosen = [_named(machine, name) for name in named.split(",")]
        return tuple(gpu for gpu in machine.gpus if gpu in chosen)


def _named(machine: Machine, name: str) -> Gpu:
    for gpu in machine.gpus:
        if name.lower() in (str(gpu.index), gpu.uuid.lower(), gpu.pci_bus_id, f"0000{gpu.pci_bus_id}"):
            return gpu
    raise NoSuchGpu(f"no GPU is named {name}")
