"""docs/user/migration.md says nothing that the suite does not run."""

from __future__ import annotations

import re
from pathlib import Path

from e2e.kit.migration_page import PAGE, command, commands

SUITE = Path(__file__).parents[2] / "e2e/suites/test_takeover.py"
_RUN = re.compile(r'page\.run(?:_on_node)?\((?:node, )?"([^"]+)"')
# Of NVIDIA's chart, which no cluster here has.
NOT_OURS = "helm uninstall nvidia-dra-driver-gpu "


def test_every_command_of_the_page_is_run_by_the_suite() -> None:
    page = PAGE.read_text()
    run = {command(page, beginning) for beginning in _RUN.findall(SUITE.read_text())}
    assert {each for each in commands(page) if not each.startswith(NOT_OURS)} == run
