"""mig-parted's files: what is accepted as it is, and the words for what is not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from api.mig_layouts import decode, split_profile
from api.strict import DecodeError

# All forms that mig-parted's documentation and its generated files have.
FILE = """
version: v1
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  all-enabled:
    - devices: all
      mig-enabled: true
      mig-devices: {}
  all-1g.10gb.me:
    - devices: all
      mig-enabled: true
      mig-devices:
        "1g.10gb+me": 1
  all-balanced:
    - device-filter: ["0x20B010DE", "0x20B110DE"]
      devices: all
      mig-enabled: true
      mig-devices: {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1}
    - device-filter: "0x233010DE"
      devices: all
      mig-enabled: true
      mig-devices: {"1g.10gb": 2, "2g.20gb": 1, "3g.40gb": 1}
  custom:
    - devices: [0,1,2,3]
      mig-enabled: false
      mig-devices: {}
    - devices: [4]
      mig-enabled: true
      mig-devices: {"1c.3g.20gb": 2, "1c.2g.10gb": 0, "2c.3g.20gb": 1}
    - device-filter: ""
      devices: []
      mig-enabled: true
      mig-devices: {"1g.24gb+me.all": 1, "1g.24gb+gfx": 1, "2g.48gb-me": 1}
"""


def test_a_file_is_accepted_as_it_is() -> None:
    document = yaml.safe_load(FILE)
    layouts = decode(document)
    assert layouts.to_wire() == document
    assert decode(layouts.to_wire()) == layouts
    balanced = layouts.mig_configs["all-balanced"]
    assert [entry.pci_ids for entry in balanced] == [{0x20B010DE, 0x20B110DE}, {0x233010DE}]
    assert balanced[0].wanted == {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1}
    custom = layouts.mig_configs["custom"]
    assert [entry.devices for entry in custom] == [[0, 1, 2, 3], [4], []]
    assert custom[1].wanted == {"1c.3g.20gb": 2, "2c.3g.20gb": 1}
    assert custom[2].pci_ids == frozenset()
    assert layouts.mig_configs["all-disabled"][0].wanted == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1g.10gb", (None, "1g.10gb")),
        ("7g.80gb", (None, "7g.80gb")),
        ("1c.2g.10gb", (1, "2g.10gb")),
        ("2c.2g.10gb", (None, "2g.10gb")),
        ("1g.10gb+me", (None, "1g.10gb+me")),
        ("1c.4g.96gb+gfx", (1, "4g.96gb+gfx")),
        ("1g.24gb-me", (None, "1g.24gb-me")),
        ("1g.24gb+me.all", (None, "1g.24gb+me.all")),
    ],
)
def test_profiles(text: str, expected: tuple[int | None, str]) -> None:
    assert split_profile(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1g", "1g10gb", "0g.5gb", "3c.2g.10gb", "1g.5gb+", "1g.5gb+ME", "c.1g.5gb", "1g.5gb "]
)
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no MIG profile|compute slices in a GPU instance of"):
        split_profile(text)


def problems(text: str) -> list[str]:
    with pytest.raises(DecodeError) as caught:
        decode(yaml.safe_load(text), path="spec.mig.layouts")
    return [str(problem).removeprefix("spec.mig.layouts.") for problem in caught.value.problems]


def entry(fields: str) -> str:
    return f"{{version: v1, mig-configs: {{a: [{{{fields}}}]}}}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{version: v2, mig-configs: {}}", ['version: must be v1, not "v2"', "mig-configs: must have at least one layout"]),
        (
            "{mig_configs: {}}",
            [
                "version: required, one of v1",
                "mig_configs: unknown field, did you mean mig-configs?",
            ],
        ),
        ("{version: v1, mig-configs: {a: []}}", ["mig-configs.a: must have at least one entry"]),
        ("{version: v1, mig-configs: {a: null}}", ["mig-configs.a: must be a list, not null"]),
        (
            '{version: v1, mig-configs: {"": [{devices: all, mig-enabled: false}]}}',
            ['mig-configs[""]: must be the name of a layout, at most 253 characters, not ""'],
        ),
        (
            entry("device: all, mig-enabled: false"),
            ["mig-configs.a[0].device: unknown field, did you mean devices?"],
        ),
        (
            entry("devices: al, mig-enabled: false"),
            ['mig-configs.a[0].devices: must be all or a list of GPU indexes, not "al", did you mean all?'],
        ),
        (
            entry("devices: 0, mig-enabled: false"),
            ["mig-configs.a[0].devices: must be all or a list of GPU indexes, not 0, write [0]"],
        ),
        (
            entry('devices: [0, 0, -1, "1"], mig-enabled: false'),
            [
                "mig-configs.a[0].devices[1]: is given twice: 0",
                "mig-configs.a[0].devices[2]: must be the index of a GPU, not -1",
                'mig-configs.a[0].devices[3]: must be the index of a GPU, not "1"',
            ],
        ),
        (
            entry('device-filter: [0x20B010DE, "A100"], devices: all, mig-enabled: false'),
            [
                ("mig-configs.a[0].device-filter[0]: must be a PCI id of 32 bits, not 548409566, "
                'PCI device id and vendor id in hexadecimal and in quotes, such as "0x20b010de"'),
                ('mig-configs.a[0].device-filter[1]: must be a PCI id of 32 bits, not "A100", '
                'PCI device id and vendor id in hexadecimal and in quotes, such as "0x233010DE"'),
            ],
        ),
        (
            entry('device-filter: "0x120B010DE", devices: all, mig-enabled: false'),
            [
                ('mig-configs.a[0].device-filter: must be a PCI id of 32 bits, not "0x120B010DE", '
                'PCI device id and vendor id in hexadecimal and in quotes, such as "0x233010DE"')
            ],
        ),
        (
            entry('devices: all, mig-enabled: "yes"'),
            ['mig-configs.a[0].mig-enabled: must be true or false, not "yes"'],
        ),
        (
            entry("devices: all, mig-enabled: true"),
            ["mig-configs.a[0].mig-devices: required where mig-enabled is true, {} is no device at all"],
        ),
        (
            entry("devices: all, mig-enabled: false, mig-devices: {1g.5gb: 1}"),
            [
                ("mig-configs.a[0].mig-devices: must be empty where mig-enabled is false, "
                "set mig-enabled to true or remove it")
            ],
        ),
        (
            entry("devices: all, mig-enabled: true, mig-devices: {1g.5gb: 0}"),
            ["mig-configs.a[0].mig-devices: all counts are 0, write {} for a GPU in MIG mode without devices"],
        ),
        (
            entry("devices: all, mig-enabled: true, mig-devices: {1g.5gb: -1, 2g.10gb: true, 3g.20gb: 65}"),
            [
                'mig-configs.a[0].mig-devices["1g.5gb"]: must be a number of devices from 0 to 64, not -1',
                'mig-configs.a[0].mig-devices["2g.10gb"]: must be a number of devices from 0 to 64, not true',
                'mig-configs.a[0].mig-devices["3g.20gb"]: must be a number of devices from 0 to 64, not 65',
            ],
        ),
        (
            entry("devices: all, mig-enabled: true, mig-devices: {1g5gb: 1, 1C.2G.10GB: 1, mig: 1, 3c.2g.10gb: 1}"),
            [
                'mig-configs.a[0].mig-devices["1g5gb"]: must be a MIG profile, not "1g5gb", did you mean 1g.5gb?',
                ('mig-configs.a[0].mig-devices["1C.2G.10GB"]: must be a MIG profile, not "1C.2G.10GB", '
                "did you mean 1c.2g.10gb?"),
                ('mig-configs.a[0].mig-devices.mig: must be a MIG profile, not "mig", '
                "such as 1g.10gb, 1g.10gb+me or 1c.3g.40gb"),
                ('mig-configs.a[0].mig-devices["3c.2g.10gb"]: must have at most 2 compute slices (c), not 3, '
                "a compute instance is a part of its GPU instance"),
            ],
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["version", "mig-configs", "devices", "device-filter", "mig-enabled", "mig-devices", "1g.5gb"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values, json_values)
def test_anything_is_decoded_or_refused(anything: Any, fields: Any) -> None:
    for document in (anything, {"version": "v1", "mig-configs": {"a": [fields]}}):
        try:
            layouts = decode(document)
        except DecodeError:
            continue
        assert decode(layouts.to_wire()) == layouts
