"""Names of the locks that keep two operations off one thing; the same in every version, for plugins overlap."""

from __future__ import annotations

_GPU, _ADMIN = "device-", "admin-"


def claim_lock(uid: str) -> str:
    return f"claim-{uid}"


def gpu_lock(uuid: str) -> str:
    """Of all that may change a GPU."""
    return f"{_GPU}{uuid}"


def admin_lock(uuid: str) -> str:
    """Of looks at a GPU that change nothing. They need not wait for its claims, only for each other: a GPU that does
    not answer must not take a thread for each of them."""
    return f"{_ADMIN}{uuid}"


def gpu_of(lock: str) -> str | None:
    """The UUID of the GPU that a lock is about; None for a lock of something else."""
    for prefix in (_GPU, _ADMIN):
        if lock.startswith(prefix):
            return lock.removeprefix(prefix)
    return None
