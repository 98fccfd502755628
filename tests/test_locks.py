"""The lock files agree: the image runs the versions that were tested, and leaves out what it never loads."""

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


def needed_by(name: str) -> dict[str, set[str]]:
    """Who needs each package, as uv notes it below the pin."""
    blocks = re.split(r"^(?=[a-z0-9])", (_ROOT / name).read_text(), flags=re.MULTILINE)[1:]
    return {
        block.partition("==")[0].partition("[")[0]: set(re.findall(r"# (?:via|  )\s*([a-z0-9._-]+)", block))
        for block in blocks
    }


def test_the_image_leaves_out_the_kubernetes_client_and_what_only_it_needs() -> None:
    needed = needed_by("requirements.lock")
    left_out = {"kubernetes"}
    while more := {name for name, users in needed.items() if users <= left_out} - left_out:
        left_out |= more
    assert {"requests", "oauthlib"} <= left_out
    assert pins("requirements-image.lock").keys() == needed.keys() - left_out


def test_the_kubernetes_client_is_a_regular_dependency() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    assert "kubernetes" in names(project["dependencies"])
    assert "optional-dependencies" not in project
    assert names(project["dependencies"]) <= pins("requirements.lock").keys()


def test_every_pin_has_a_hash() -> None:
    text = (_ROOT / "requirements-image.lock").read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins("requirements-image.lock"))
    assert all("--hash=sha256:" in block for block in blocks)
