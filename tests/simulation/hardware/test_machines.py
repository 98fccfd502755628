"""The recorded machines: complete, consistent, honest about their sources; and what a bad file is told."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dra_driver.simulation.hardware.description import (
    MachineFileError,
    ProfileDescription,
    format_machine,
    load_machine,
    parse_machine,
    recorded_machines,
)

EXPECTED = {
    "a100-sxm4-40gb": 8,
    "a100-sxm4-80gb": 8,
    "a30": 2,
    "b200": 8,
    "gb200": 4,
    "h100-nvl": 2,
    "h100-sxm5-80gb": 8,
    "h200": 8,
    "l40s": 4,
    "rtx-pro-6000": 4,
    "t4": 4,
}
MIG_MACHINES = [name for name in EXPECTED if name not in ("l40s", "t4")]
SEVEN_SLICES = [name for name in MIG_MACHINES if name not in ("a30", "rtx-pro-6000")]


def profiles(name: str) -> dict[int, ProfileDescription]:
    found = load_machine(name).hardware.products[0].mig_profiles
    assert found is not None
    return {profile.id: profile for profile in found}


def run(profile: ProfileDescription, start: int) -> set[int]:
    return set(range(start, start + profile.placements.size))


def test_the_machines_are_there() -> None:
    assert {name: len(load_machine(name).hardware.gpus) for name in recorded_machines()} == EXPECTED


def test_a_machine_with_another_driver_is_the_same_apart_from_it_and_says_so() -> None:
    recorded = load_machine("h100-sxm5-80gb")
    other = recorded.with_driver("615.71.09", 13040)
    assert (other.hardware.driver_version, other.hardware.cuda_driver_version) == ("615.71.09", 13040)
    assert other.interpolated[-1].paths == ("hardware.driverVersion", "hardware.cudaDriverVersion")
    changes = {"driver_version": "580.105.08", "cuda_driver_version": 13000}
    assert other.hardware.model_copy(update=changes) == recorded.hardware
    assert parse_machine(format_machine(other), origin="again") == other
    with pytest.raises(MachineFileError, match=r"with driver newest is not a valid .*hardware\.driverVersion"):
        recorded.with_driver("newest", 13040)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_machine_file_is_written_as_our_formatter_writes_it(name: str) -> None:
    description = load_machine(name)
    assert description.name == name
    assert description.sources
    text = format_machine(description)
    assert parse_machine(text, origin="itself") == description
    shipped = Path(__file__).parents[3] / "dra_driver/simulation/hardware/machines" / f"{name}.json"
    assert shipped.read_text() == text


@pytest.mark.parametrize("name", EXPECTED)
def test_every_interpolated_path_leads_to_a_value(name: str) -> None:
    description = load_machine(name)
    wire = description.to_wire()
    for path in itertools.chain.from_iterable(each.paths for each in description.interpolated):
        assert follow(wire, path), f"{path} leads nowhere"


def follow(value: Any, path: str) -> list[Any]:
    found = [value]
    for part in re.findall(r"[^.\[\]]+", path):
        if part == "*":
            found = [each for items in found for each in items]
        elif part.isdigit():
            found = [items[int(part)] for items in found]
        else:
            found = [items[part] for items in found if part in items]
    return found


@pytest.mark.parametrize("name", MIG_MACHINES)
def test_profiles_fit_as_often_as_they_say(name: str) -> None:
    """``instances`` is the most that can stand side by side, unless an engine that exists once limits it to one."""
    for profile in profiles(name).values():
        starts = profile.placements.starts
        assert all(not run(profile, a) & run(profile, b) for a, b in itertools.combinations(starts, 2))
        assert profile.instances in (1, len(starts)), profile.name


@pytest.mark.parametrize("name", MIG_MACHINES)
def test_names_say_what_a_profile_has(name: str) -> None:
    product = load_machine(name).hardware.products[0]
    assert product.memory_bytes is not None
    for profile in profiles(name).values():
        match = re.fullmatch(r"(\d)g\.(\d+)gb(\+me|\+me\.all|\+gfx|-me)?", profile.name)
        assert match is not None
        assert int(match[1]) == profile.slices
        # gigabytes in names are rounded up shares of the whole memory; the profile itself has a little less
        assert abs(profile.memory_mib / 1024 - int(match[2])) <= 3.1, profile.name
        assert profile.memory_mib << 20 < product.memory_bytes


@pytest.mark.parametrize("name", MIG_MACHINES)
def test_the_largest_profile_is_the_most_of_everything(name: str) -> None:
    table = profiles(name)
    largest = table[0]
    for profile in table.values():
        for field in (
            "multiprocessors",
            "copy_engines",
            "decoders",
            "encoders",
            "jpeg_engines",
            "ofa_engines",
            "memory_mib",
        ):
            assert getattr(profile, field) <= getattr(largest, field), f"{profile.name}.{field}"


@pytest.mark.parametrize("name", SEVEN_SLICES)
def test_seven_slice_tables_have_the_known_ids_and_placements(name: str) -> None:
    table = profiles(name)
    assert {identity: (each.slices, each.enum_index, each.placements.starts) for identity, each in table.items()} == {
        19: (1, 0, (0, 1, 2, 3, 4, 5, 6)),
        20: (1, 7, (0, 1, 2, 3, 4, 5, 6)),
        15: (1, 9, (0, 2, 4, 6)),
        14: (2, 1, (0, 2, 4)),
        9: (3, 2, (0, 4)),
        5: (4, 3, (0,)),
        0: (7, 4, (0,)),
    }


@pytest.mark.parametrize("name", SEVEN_SLICES)
def test_consequences_of_the_seven_slice_table(name: str) -> None:
    table = profiles(name)
    assert not run(table[5], 0) & run(table[9], 4), "4g and 3g fit together"
    three_2g = set().union(*(run(table[14], start) for start in (0, 2, 4)))
    assert [start for start in table[19].placements.starts if not run(table[19], start) & three_2g] == [6]
    two_3g = run(table[9], 0) | run(table[9], 4)
    assert all(run(profile, start) & two_3g for profile in table.values() for start in profile.placements.starts)
    assert 7 not in set().union(*(run(table[19], start) for start in table[19].placements.starts))


@given(st.sampled_from(SEVEN_SLICES), st.data())
def test_whatever_fits_by_placement_fits_by_slices_and_memory(name: str, data: st.DataObject) -> None:
    """Placements are the strictest rule: any set of them that does not overlap stays within the whole GPU."""
    table = profiles(name)
    wanted = data.draw(st.lists(st.sampled_from(sorted(table)), min_size=1, max_size=9))
    taken: set[int] = set()
    placed: list[ProfileDescription] = []
    for identity in wanted:
        profile = table[identity]
        free = [start for start in profile.placements.starts if not run(profile, start) & taken]
        if free:
            taken |= run(profile, data.draw(st.sampled_from(free)))
            placed.append(profile)
    assert sum(profile.slices for profile in placed) <= 7
    assert sum(profile.memory_mib for profile in placed) <= table[0].memory_mib * 1.01
    if not any(profile.id == 20 for profile in placed):  # NVML limits +me to one; its engines exist once
        assert sum(profile.multiprocessors for profile in placed if profile.id != 15) <= table[0].multiprocessors


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("hardware", "gpus", 0, "pciBusID"), "1:2", r"hardware\.gpus\[0\]\.pciBusID: String should match pattern"),
        (("hardware", "gpus", 1, "minor"), 0, "hardware: gpus: two have the same minor"),
        (("hardware", "gpus", 1, "minor"), "1", r"hardware\.gpus\[1\]\.minor: Input should be a valid integer"),
        (("hardware", "gpus", 0, "product"), 4, r"gpus\[0\]\.product: 4 is not an index into products"),
        (("hardware", "gpus", 0, "color"), "green", r"hardware\.gpus\[0\]\.color: Extra inputs are not permitted"),
        (("hardware", "gpus", 0, "pciBusID"), "0000:ff:00.0", "gpus: must be ordered by pciBusID"),
        (("hardware", "gpus", 0, "mig"), {"enabled": False, "instances": [{"profile": 14, "start": 0}]}, "not enabled"),
        (
            ("hardware", "gpus", 0, "mig"),
            {"enabled": True, "instances": [{"profile": 5, "start": 1}]},
            "no profile 5 at 1",
        ),
        (
            ("hardware", "gpus", 0, "mig"),
            {"enabled": True, "instances": [{"profile": 5, "start": 0}, {"profile": 14, "start": 1}]},
            r"instances\[1\]: overlaps another instance",
        ),
        (("hardware", "products", 0, "migProfiles", 1, "id"), 14, r"products\[0\]\.migProfiles: two have the same id"),
        (("hardware", "products", 0, "migProfiles"), None, None),
    ],
)
def test_a_bad_machine_file_names_file_path_and_problem(
    tmp_path: Path, path: tuple[str | int, ...], value: object, said: str | None
) -> None:
    raw = json.loads(format_machine(load_machine("a30")))
    target = raw
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(raw))
    if said is None:
        assert load_machine(file).hardware.products[0].mig_profiles is None
        return
    with pytest.raises(MachineFileError, match=said) as caught:
        load_machine(file)
    assert str(file) in caught.value.message


def test_mig_on_a_product_without_mig_is_refused() -> None:
    raw = json.loads(format_machine(load_machine("t4")))
    raw["hardware"]["gpus"][2]["mig"] = {"enabled": True}
    with pytest.raises(MachineFileError, match=r"gpus\[2\]\.mig: Tesla T4 has no MIG"):
        parse_machine(json.dumps(raw), origin="test")


def test_a_file_that_is_not_json_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    with pytest.raises(MachineFileError, match=f"cannot read machine file {file}: No such file"):
        load_machine(file)
    file.write_text("{")
    with pytest.raises(
        MachineFileError, match=f"machine file {file} is not a valid machine description: the file: Invalid JSON"
    ):
        load_machine(str(file))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MachineFileError, match=r"no recorded machine is named 'h1000'.*h100-nvl, h100-sxm5-80gb"):
        load_machine("h1000")
