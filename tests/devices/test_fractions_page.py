"""What docs/user/fractions.md shows is what the driver takes and publishes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from api.claim_config import FractionConfig
from api.claim_config import decode as decode_claim_config
from api.driver_config import decode
from api.fractions import ENFORCEMENT
from dra_driver.devices.configured import device_policy
from dra_driver.devices.sharing import Fractions

PAGE = (Path(__file__).resolve().parents[2] / "docs/user/fractions.md").read_text()


def test_its_configuration_offers_fractions() -> None:
    match = re.search(r"<!-- tested: sharing -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    policy = device_policy(decode(yaml.safe_load(match[1])).spec).sharing
    assert [rule.sharing for rule in policy.rules] == [Fractions(256 * 2**20, 1)] * 2
    assert [rule.mig_profile for rule in policy.rules] == [None, "1g.10gb"]


def test_its_ladder_is_that_of_the_attributes() -> None:
    # The first is the headings.
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert rows[1:] == [(backend.value, level.value) for backend, level in ENFORCEMENT.items()]


def test_its_claim_configuration_is_taken() -> None:
    match = re.search(r"(      config:\n.*?)```", PAGE, re.DOTALL)
    assert match is not None
    (entry,) = yaml.safe_load(match[1])["config"]
    config = decode_claim_config(entry["opaque"]["parameters"])
    assert isinstance(config, FractionConfig)
    assert config.memory_limit == "20Gi"
