"""The one tree of errors that a claim, a machine or a configuration can end in.

Each error names what failed and where (its message), why (``reason``, a stable CamelCase word that becomes the Event
reason and the metric label), whether the kubelet may simply try again (``retryable``) and what a person does next
(``hint``). It is turned into a gRPC reply, an Event and a metric in one place, ``kubelet_plugin.telling.failures``.
"""

from __future__ import annotations

from typing import ClassVar


class DriverError(Exception):
    """An expected failure. ``str(error)`` is ``message``, then the hint when there is one."""

    reason: ClassVar[str] = "DriverError"
    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InternalError(DriverError):
    """Something in this driver broke; the log has the trace."""

    reason = "InternalError"

    @classmethod
    def of(cls, error: Exception) -> InternalError:
        return cls(
            f"unexpected {type(error).__name__}: {error}",
            hint="this is a defect of the driver; its log has the details",
        )


class ConfigError(DriverError):
    """An opaque configuration or a driver configuration is wrong; trying again cannot help."""

    reason = "InvalidConfig"
    retryable = False


class ClaimError(DriverError):
    """The claim, as the API server has it, cannot be prepared here."""

    reason = "ClaimNotUsable"


class ClaimNotFound(ClaimError):
    """No claim of that namespace and name exists."""

    reason = "ClaimNotFound"


class ClaimReplaced(ClaimError):
    """A claim of that name exists, but with another UID."""

    reason = "ClaimReplaced"


class ClaimNotAllocated(ClaimError):
    """The claim has no allocation (yet, or any more)."""

    reason = "ClaimNotAllocated"


class NoDevicesForDriver(ClaimError):
    """The allocation holds no device of this driver and node."""

    reason = "NoDevicesForDriver"
    retryable = False


class DeviceNotFound(ClaimError):
    """An allocated device does not exist on this node (now)."""

    reason = "DeviceNotFound"


class DeviceInUse(ClaimError):
    """Another claim holds the device; retryable, since that claim may be unprepared next."""

    reason = "DeviceInUse"


class ConflictingConfig(ClaimError):
    """The configuration does not go with what another claim has made of the device; that claim may end next."""

    reason = "ConflictingConfig"


class UnsupportedConfig(ConfigError):
    """The configuration is well-formed but this driver, node or device cannot do it."""

    reason = "UnsupportedConfig"


class HardwareError(DriverError):
    """NVML, sysfs or the device answered with an error."""

    reason = "HardwareError"


class HardwareUnavailable(HardwareError):
    """There is no usable driver library or GPU here."""

    reason = "HardwareUnavailable"


class StateError(DriverError):
    """The plugin's own state (checkpoint, CDI file, lock) could not be read or written."""

    reason = "StateError"


class PrepareTimeout(DriverError):
    """The work goes on past the caller's deadline; the retry joins it."""

    reason = "PrepareStillRunning"
