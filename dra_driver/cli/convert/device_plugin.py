"""Resources of NVIDIA's device plugin beside nvidia.com/gpu: renamed shares and MIG devices (its internal/rm and
api/config/v1)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from api.mig_layouts import split_profile
from api.strict import show
from dra_driver.cli.convert import selectors
from dra_driver.cli.convert.model import (
    MIG,
    MOST_DEVICES,
    SHARED,
    SHARED_MIG,
    Ask,
    CannotConvertError,
    Container,
    Problem,
)
from dra_driver.cli.convert.reading import GPU_SHARED, MIG_PREFIX
from dra_driver.devices.plugin_sharing import profile_of

_SHARED_SUFFIX = ".shared"


def asks(container: Container) -> Iterator[Ask]:
    """Raises :class:`CannotConvertError`."""
    for resource, count in container.amounts.items():
        if resource == GPU_SHARED and count:
            yield Ask("gpu-shared", SHARED, container.at(resource), checked_count(container, resource, count))
        elif resource.startswith(MIG_PREFIX) and count:
            yield _mig(container, resource, checked_count(container, resource, count))


def checked_count(container: Container, resource: str, count: int) -> int:
    if count > MOST_DEVICES:
        message = f"a claim has at most {MOST_DEVICES} devices, not {count}"
        raise CannotConvertError([Problem(container.at(resource), message, "ask for fewer, in several pods")])
    return count


def _mig(container: Container, resource: str, count: int) -> Ask:
    shared = resource.endswith(_SHARED_SUFFIX)
    profile = profile_of(resource.removesuffix(_SHARED_SUFFIX) if shared else resource)
    try:
        split_profile(profile or "")
    except ValueError:
        message = f"{show(resource.removeprefix(MIG_PREFIX))} is no MIG profile"
        remedy = "write one such as nvidia.com/mig-1g.10gb"
        raise CannotConvertError([Problem(container.at(resource), message, remedy)]) from None
    name = re.sub("[^a-z0-9]+", "-", f"mig-{profile}{'-shared' if shared else ''}")[:63].rstrip("-")
    selector = selectors.of_profile(profile or "")
    return Ask(name, SHARED_MIG if shared else MIG, container.at(resource), count, selectors=(selector,))
