"""docs/user/migration.md says nothing that the suite does not run."""

from __future__ import annotations

from pathlib import Path

from e2e.kit.migration_page import PAGE, commands

SUITE = Path(__file__).parents[2] / "e2e/suites/test_takeover.py"
# Of NVIDIA's chart, which no cluster here has.
NOT_OURS = ("helm uninstall nvidia-dra-driver-gpu ",)


def test_every_command_of_the_page_is_run_by_the_suite() -> None:
    run = [text.split('"')[1] for text in SUITE.read_text().split("page.run")[1:] if '"' in text.partition(")")[0]]
    found = set(commands(PAGE.read_text()))
    assert len(found) == 9
    left = [each for each in found if not each.startswith(NOT_OURS)]
    assert not [each for each in left if not any(each.startswith(beginning) for beginning in run)]


def test_a_beginning_means_one_command() -> None:
    for command in commands(PAGE.read_text()):
        assert command.split(maxsplit=1)[0] in ("helm", "kubectl", "cat")
