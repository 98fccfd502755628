"""The settings of a group: those of a claim's configuration, or of a rule that makes replicas. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from api.claim_config import ClaimConfig, GpuConfig, MigDeviceConfig, MpsConfig, SharingStrategy
from api.memory import MIB, in_bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """``limit_mib``: pinned device memory of one client on each device. ``limits_mib``: on single ones, by UUID or by
    index in the group's sorted UUIDs; they go before the first."""

    active_thread_percentage: int | None = None
    limit_mib: int | None = None
    limits_mib: tuple[tuple[str, int], ...] = ()
    multi_user: bool = False

    @classmethod
    def of_config(cls, config: MpsConfig) -> Self:
        """Limits are whole MiB, rounded down, as in NVIDIA's driver (api/nvidia.com/resource/v1beta1, sharing.go)."""
        limit, limits = config.default_pinned_device_memory_limit, config.default_per_device_pinned_memory_limit
        return cls(
            config.default_active_thread_percentage,
            None if limit is None else _in_mib(limit),
            tuple(sorted((key, _in_mib(value)) for key, value in (limits or {}).items())),
            bool(config.multi_user),
        )

    @classmethod
    def of_replicas(cls, count: int, memory_mib: int | None) -> Self:
        """Equal parts, as the device plugin's MPS daemon has them (k8s-device-plugin, cmd/mps-control-daemon/mps)."""
        return cls(100 // count, None if memory_mib is None else memory_mib // count)

    def by_uuid(self, uuids: Sequence[str]) -> Mapping[str, int]:
        """The limits of the sorted ``uuids``. KeyError for a key that means none of them."""
        limits = {} if self.limit_mib is None else dict.fromkeys(uuids, self.limit_mib)
        named = {str(index): uuid for index, uuid in enumerate(uuids)} | {uuid: uuid for uuid in uuids}
        return {**limits, **{named[key]: limit for key, limit in self.limits_mib}}

    def to_arguments(self) -> dict[str, str]:
        """For the journal."""
        arguments = {
            "activeThreadPercentage": _text(self.active_thread_percentage),
            "pinnedMemoryMiB": _text(self.limit_mib),
            "pinnedMemoryMiBOf": " ".join(f"{key}={limit}" for key, limit in self.limits_mib),
            "multiUser": "true" if self.multi_user else "",
        }
        return {key: value for key, value in arguments.items() if value}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, str]) -> Self:
        """Raises ValueError for what :meth:`to_arguments` did not make."""
        pairs = (pair.rpartition("=") for pair in arguments.get("pinnedMemoryMiBOf", "").split())
        return cls(
            _number(arguments.get("activeThreadPercentage")),
            _number(arguments.get("pinnedMemoryMiB")),
            tuple((key, int(limit)) for key, _equals, limit in pairs),
            "multiUser" in arguments,
        )


def asked_mps(config: ClaimConfig) -> MpsConfig | None:
    """What ``config`` asks of MPS; None for one that does not ask for it."""
    if not isinstance(config, GpuConfig | MigDeviceConfig) or config.sharing is None:
        return None
    if config.sharing.strategy is not SharingStrategy.MPS:
        return None
    return config.sharing.mps_config or MpsConfig()


def _in_mib(quantity: str) -> int:
    return in_bytes(quantity) // MIB


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
