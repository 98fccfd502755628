"""Pages for people: links lead somewhere, files and make targets that they name exist, and what was never tried is said."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FOLDERS = ("api", "controller", "deploy", "docs", "dra_driver", "e2e", "kubelet_plugin", "tests")
_FIRST_SCREEN = 24  # lines

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """Without fenced blocks, where brackets are YAML's."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        leads = (page.parent / path).resolve() if path else page
        assert leads.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(leads), f"{target}: no such heading"


@pages
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(_FOLDERS)})/[\w./*-]*)`", prose(page))
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
    assert missing == []


@pages
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`|\$ )make ([a-z0-9-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


def test_the_readme_lists_every_page_once() -> None:
    text = (ROOT / "README.md").read_text()
    listed = Counter(re.findall(r"^\| \[(docs/[^]]+)\]", text, re.MULTILINE))
    assert listed == Counter(str(page.relative_to(ROOT)) for page in PAGES if page.is_relative_to(ROOT / "docs"))
    for shown, target in re.findall(r"\[([^]]+\.md)\]\(([^)]+)\)", text):
        assert shown == target, "a link shows where it leads"


@pytest.mark.parametrize("name", ["README.md", "docs/user/install.md", "docs/dev/hardware.md"])
def test_the_first_screen_says_what_never_ran_on_hardware(name: str) -> None:
    first = " ".join((ROOT / name).read_text().splitlines()[:_FIRST_SCREEN])
    assert re.search(r"(never run|Nothing of this project has run) on a physical GPU", first)
    assert "gpu-check" in first
