"""What a person would like to have: ``3g.40gb=2,1g.10gb=3``, checked against the profiles that there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from api.mig_layouts import split_profile
from dra_driver.cli.mig.reading import ClusterView
from dra_driver.devices.mig_layout import closest_profile
from dra_driver.errors import DriverError

MOST_WANTED = 1000


class WantError(DriverError):
    """The wish cannot be read, or names a profile that no GPU has."""

    reason = "BadWant"
    retryable = False


def parse_want(text: str) -> dict[str, int]:
    """Counts by profile, in the order given. Raises :class:`WantError`."""
    wanted: dict[str, int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        count = _count(number) if equals else 1
        if count is None:
            raise WantError(f"{part!r}: a number of devices from 1 to {MOST_WANTED} must follow the =")
        try:
            split_profile(name)
        except ValueError as error:
            raise WantError(f"{part!r}: {error}", hint="such as 3g.40gb=2,1g.10gb=3") from None
        wanted[name] = wanted.get(name, 0) + count
    if not wanted:
        raise WantError("nothing is wanted", hint="such as --want 3g.40gb=2,1g.10gb=3")
    return wanted


def _count(text: str) -> int | None:
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return count if 0 < count <= MOST_WANTED else None


def check_profiles(wanted: Iterable[str], view: ClusterView) -> None:
    """Raises :class:`WantError` naming the profiles that exist, per product."""
    known = known_profiles(view)
    for name in wanted:
        _compute, instance_profile = split_profile(name)
        if not any(instance_profile in profiles for profiles in known.values()):
            everything = [profile for profiles in known.values() for profile in profiles]
            close = closest_profile(instance_profile, everything)
            listed = "; ".join(f"{product}: {', '.join(profiles)}" for product, profiles in known.items())
            raise WantError(
                f"no GPU has MIG profile {name}{f', did you mean {close}?' if close else ''}",
                hint=listed or "none of these GPUs has MIG",
            )


def known_profiles(view: ClusterView) -> Mapping[str, list[str]]:
    """MIG profiles by product, as NVML lists them."""
    known: dict[str, list[str]] = {}
    for node in view.nodes:
        for gpu in node.gpus:
            if gpu.mig is not None and gpu.mig.profiles:
                known.setdefault(gpu.product_name, [profile.name for profile in gpu.mig.profiles])
    return known
