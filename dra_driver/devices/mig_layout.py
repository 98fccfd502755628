"""What a named layout means for one GPU: which entry is for it, which instances it asks for, what has to change.

Layouts have mig-parted's format (``api.mig_layouts``), and its meaning: of several entries that are for a GPU the last
one counts; compute instances that are smaller than their GPU instance (``1c.3g.40gb``) share one as long as it has
room. Pure; the kubelet plugin does what a plan says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.mig_layouts import ALL_DEVICES, LayoutEntry, split_profile
from api.shape import closest
from dra_driver.devices.mig_fit import NoFit, Placed, fit
from dra_driver.hardware.model import Gpu, GpuInstance, MigPlacement, MigProfile, MigState


@dataclass(frozen=True, slots=True)
class LayoutInstance:
    """A GPU instance that the layout asks for. ``compute``: slices of its compute instances, the largest first."""

    profile: MigProfile
    placement: MigPlacement
    compute: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.profile.name} at {self.placement.start}"


@dataclass(frozen=True, slots=True)
class KeptInstance:
    """An instance that stays. ``remove``: ids of compute instances to destroy first; ``add``: slices of those to make
    then. Both are empty where it has what the layout asks for."""

    instance: GpuInstance
    remove: tuple[int, ...] = ()
    add: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LayoutPlan:
    """From what a GPU has to what the layout asks for; MIG mode is on. Removing comes first."""

    remove: tuple[GpuInstance, ...] = ()
    keep: tuple[KeptInstance, ...] = ()
    create: tuple[LayoutInstance, ...] = ()

    @property
    def done(self) -> bool:
        return not self.remove and not self.create and not any(each.remove or each.add for each in self.keep)


@dataclass(frozen=True, slots=True)
class LayoutRefusal:
    """Why the GPU cannot have the layout, with what was tried; one line for people."""

    message: str


def entry_for(entries: Sequence[LayoutEntry], gpu: Gpu) -> LayoutEntry | None:
    """The last entry that is for ``gpu``: by NVML's index, and by PCI id where the entry has a filter.

    A GPU whose PCI id NVML does not tell matches no filter.
    """
    return next((entry for entry in reversed(entries) if _is_for(entry, gpu)), None)


def plan_layout(gpu: Gpu, counts: Mapping[str, int]) -> LayoutPlan | LayoutRefusal:
    """Plan for ``counts`` of devices by profile (``1g.10gb``, ``1c.3g.40gb``), keeping what exists where possible.

    What to keep is decided by profile and placement, first for instances whose compute instances are right.
    """
    mig = gpu.mig or MigState(enabled=False, pending=False)
    profiles = {profile.name: profile for profile in mig.profiles}
    bundles: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    partial: dict[int, Counter[int]] = defaultdict(Counter)
    for key, count in counts.items():
        compute, name = split_profile(key)
        profile = profiles.get(name)
        if profile is None:
            return LayoutRefusal(unknown_profile(name, gpu))
        if compute is None:
            bundles[profile.id] += [(profile.slice_count,)] * count
        else:
            partial[profile.id][compute] += count
    for profile_id, parts in partial.items():
        bundles[profile_id] += _share(parts, _slices(mig, profile_id))
    return _plan(gpu, mig, {profile_id: each for profile_id, each in bundles.items() if each}, counts)


def unknown_profile(name: str, gpu: Gpu) -> str:
    """That ``gpu`` has no profile ``name``, which ones it has, and which one was probably meant."""
    known = [profile.name for profile in gpu.mig.profiles] if gpu.mig else []
    if not known:
        return f"{gpu.product_name} has no MIG profile {name}: it has none at all"
    meant = closest_profile(name, known)
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{gpu.product_name} has no MIG profile {name}, only {', '.join(known)}{hint}"


def closest_profile(name: str, known: Sequence[str]) -> str | None:
    """The known profile that ``name`` most likely means: the one of this size on another product, or a slip."""
    return next((each for each in known if _shape(each) == _shape(name)), None) or closest(name, known)


def count_text(counts: Mapping[str, int]) -> str:
    """``2x 1g.10gb, 1x 3g.40gb``."""
    return ", ".join(f"{count}x {name}" for name, count in counts.items() if count) or "no devices"


def _shape(profile: str) -> tuple[str, str]:
    """What is the same on GPUs of another size: ``("1g", "+me")`` of ``1g.10gb+me``."""
    slices, _, rest = profile.partition(".")
    return slices, rest.partition("gb")[2]


def _is_for(entry: LayoutEntry, gpu: Gpu) -> bool:
    if entry.devices != ALL_DEVICES and gpu.index not in entry.devices:
        return False
    return not entry.pci_ids or gpu.pci_device_id in entry.pci_ids


def _slices(mig: MigState, profile_id: int) -> int:
    profile = mig.profile(profile_id)
    return profile.slice_count if profile else 0


def _share(parts: Counter[int], slices: int) -> list[tuple[int, ...]]:
    """Partial compute instances in GPU instances of ``slices``: the largest first, each where it fits first."""
    bundles: list[list[int]] = []
    for part in sorted(parts.elements(), reverse=True):
        home = next((bundle for bundle in bundles if sum(bundle) + part <= slices), None)
        if home is None:
            bundles.append([part])
        else:
            home.append(part)
    return [tuple(bundle) for bundle in bundles]


def _plan(
    gpu: Gpu, mig: MigState, bundles: Mapping[int, Sequence[tuple[int, ...]]], counts: Mapping[str, int]
) -> LayoutPlan | LayoutRefusal:
    existing = sorted(mig.instances, key=lambda each: (not _is_right(each, bundles), each.placement, each.id))
    found = fit(
        mig.profiles,
        {profile_id: len(each) for profile_id, each in bundles.items()},
        [Placed(each.placement, each.profile_id) for each in existing],
    )
    if isinstance(found, NoFit):
        return LayoutRefusal(_refusal(gpu, mig, found, counts))
    return _difference(mig, found, existing, bundles)


def _is_right(instance: GpuInstance, bundles: Mapping[int, Sequence[tuple[int, ...]]]) -> bool:
    return _compute(instance) in bundles.get(instance.profile_id, ())


def _compute(instance: GpuInstance) -> tuple[int, ...]:
    return tuple(sorted((each.slices for each in instance.compute_instances), reverse=True))


def _difference(
    mig: MigState,
    found: Sequence[Placed],
    existing: Sequence[GpuInstance],
    bundles: Mapping[int, Sequence[tuple[int, ...]]],
) -> LayoutPlan:
    left = {profile_id: list(each) for profile_id, each in bundles.items()}
    places = set(found)
    kept = [each for each in existing if Placed(each.placement, each.profile_id) in places]
    keep: list[KeptInstance] = []
    # Those that are right come first in ``existing`` and take their bundles before others may.
    for instance in kept:
        choices = left[instance.profile_id]
        bundle = max(choices, key=lambda choice: _overlap_of(instance, choice))
        choices.remove(bundle)
        keep.append(_mend(instance, bundle))
    create: list[LayoutInstance] = []
    for placed in sorted(places - {Placed(each.placement, each.profile_id) for each in kept}):
        profile = mig.profile(placed.profile_id)
        if profile is not None:
            create.append(LayoutInstance(profile, placed.placement, left[profile.id].pop(0)))
    stay = {each.id for each in kept}
    return LayoutPlan(
        remove=tuple(each for each in mig.instances if each.id not in stay),
        keep=tuple(sorted(keep, key=lambda each: each.instance.placement)),
        create=tuple(create),
    )


def _overlap_of(instance: GpuInstance, bundle: tuple[int, ...]) -> int:
    """How good a bundle is for what the instance has: right, a good beginning, or all to be made anew."""
    has = _compute(instance)
    return 2 if has == bundle else 1 if has == bundle[: len(has)] else 0


def _mend(instance: GpuInstance, bundle: tuple[int, ...]) -> KeptInstance:
    """A beginning of the bundle is completed, since the largest are made first; anything else is made anew, because
    what stays could lie in the way of a larger one."""
    has = _compute(instance)
    if has == bundle[: len(has)]:
        return KeptInstance(instance, add=bundle[len(has) :])
    return KeptInstance(instance, tuple(each.id for each in instance.compute_instances), bundle)


def _refusal(gpu: Gpu, mig: MigState, refused: NoFit, counts: Mapping[str, int]) -> str:
    text = f"{count_text(counts)} do not fit on {gpu.product_name}"
    if refused.limit:
        return f"{text}: {refused.limit}"
    names = {profile.id: profile.name for profile in mig.profiles}
    tries = "; ".join(
        f"{_arrangement(placed, names)} leaves no place for {refused.wanted[missing]}x {names[missing]}"
        for placed, missing in refused.attempts
    )
    more = refused.tried - len(refused.attempts)
    return f"{text}; tried: {tries}" + (f"; and {more} more" if more > 0 else "")


def _arrangement(placed: Sequence[Placed], names: Mapping[int, str]) -> str:
    return ", ".join(f"{names[each.profile_id]} at {each.placement.start}" for each in placed) or "the empty GPU"
