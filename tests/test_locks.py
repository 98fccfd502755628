"""The lock files agree: the image runs the versions that were tested, and nothing that it does not need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    found = dict(_PIN.findall((_ROOT / name).read_text()))
    assert found
    return found


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ;\[]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def test_every_lock_has_the_versions_of_the_first() -> None:
    everything = pins("requirements.lock")
    for name in ("requirements-image.lock", "requirements-dev.lock"):
        common = pins(name).keys() & everything.keys()
        assert {each: pins(name)[each] for each in common} == {each: everything[each] for each in common}, name
    assert pins("requirements-image.lock").keys() <= everything.keys()


def test_the_image_has_the_dependencies_without_the_extra() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    image = pins("requirements-image.lock").keys()
    assert names(project["dependencies"]) <= image
    assert not names(project["optional-dependencies"]["login"]) & image
    assert names(project["optional-dependencies"]["login"]) == {"kubernetes"} <= pins("requirements.lock").keys()


def test_every_pin_has_a_hash() -> None:
    text = (_ROOT / "requirements-image.lock").read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins("requirements-image.lock"))
    assert all("--hash=sha256:" in block for block in blocks)
