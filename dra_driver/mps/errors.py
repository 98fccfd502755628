"""What can go wrong between the kubelet plugin and the MPS supervisor, as errors of the one tree."""

from __future__ import annotations

from dra_driver.errors import HardwareError


class MpsError(HardwareError):
    """Something about MPS failed."""

    reason = "MpsError"


class SupervisorUnavailable(MpsError):
    """Nobody serves the supervisor's socket, or the supervisor is starting or ending."""

    reason = "MpsSupervisorUnavailable"


class SupervisorVersion(MpsError):
    """What serves the socket speaks another protocol; so it is during an upgrade, for a moment."""

    reason = "MpsSupervisorVersion"


class GroupRefused(MpsError):
    """The group cannot be had on this node, however often it is asked for."""

    reason = "MpsRefused"
    retryable = False


class GroupDiffers(MpsError):
    """A group of that id runs with other settings."""

    reason = "MpsGroupDiffers"


class GroupFailed(MpsError):
    """The daemon could not be started or stopped, or what it needs could not be made or removed."""

    reason = "MpsDaemonFailed"


class GroupTimeout(MpsError):
    """It was not done in time; the next try joins or begins again."""

    reason = "MpsTimeout"
