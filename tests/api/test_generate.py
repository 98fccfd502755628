"""The committed generated files are what the models say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from api import generate


@pytest.mark.parametrize("path", sorted(generate.generated()), ids=str)
def test_committed_file_is_current(path: Path) -> None:
    assert (generate.ROOT / path).read_text() == generate.generated()[path], "run `make generate`"


def test_nothing_else_lies_among_the_generated_files() -> None:
    folder = generate.ROOT / generate.CRDS
    found = {path.relative_to(generate.ROOT) for path in folder.rglob("*") if path.is_file()}
    assert found == {path for path in generate.generated() if generate.CRDS in path.parents}


def test_check_finds_and_a_run_repairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(generate.ROOT / "docs/user", tmp_path / "docs/user")
    shutil.copytree(generate.ROOT / generate.CRDS, tmp_path / generate.CRDS)
    shutil.copytree(generate.ROOT / generate.CHART, tmp_path / generate.CHART)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate.generated, "__defaults__", (tmp_path,))
    stale = tmp_path / generate.CRDS / "nodeinventories.yaml"
    stale.write_text("old")
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "deploy/crds/nodeinventories.yaml: not current, run make generate\n"
    assert stale.read_text() == "old"
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_a_block_is_replaced_and_the_rest_kept() -> None:
    page = "a\n<!-- begin generated x -->\nold\n<!-- end generated x -->\nb\n"
    once = generate.replace_block(page, "x", "new\n")
    assert once == "a\n<!-- begin generated x -->\n\nnew\n\n<!-- end generated x -->\nb\n"
    assert generate.replace_block(once, "x", "new\n") == once
    with pytest.raises(ValueError, match="no block named y"):
        generate.replace_block(page, "y", "")
