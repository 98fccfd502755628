"""Every manifest below deploy/examples, applied as it is: pods reach what the manifest expects, containers see it.

With ``--manifest`` those of anybody. Where the cluster has no registry, their images are stood in for by ours. Those of
``fractions`` want the driver to have other values and are in ``test_fractions``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dra_driver.cli.manifests import in_order, load
from e2e.kit.manifests import features_used, try_manifests
from e2e.kit.space import Space
from e2e.kit.stage import Stage

EXAMPLES = Path(__file__).resolve().parents[2] / "deploy" / "examples"
_ELSEWHERE = ("values", "fractions", "from")


def example_files() -> list[Path]:
    """All manifests; what is in ``values`` is for Helm, and has tests of its own."""
    return sorted(path for path in EXAMPLES.rglob("*.yaml") if path.parent.name not in _ELSEWHERE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given: list[Path] = metafunc.config.getoption("--manifest")
    metafunc.parametrize("path", given or example_files(), ids=lambda path: name_of(path.absolute()))


def name_of(path: Path) -> str:
    return str((path.relative_to(EXAMPLES) if path.is_relative_to(EXAMPLES) else path).with_suffix(""))


def test_example(stage: Stage, leaving: list[Space], path: Path) -> None:
    manifests = in_order(load([path]))
    for feature in features_used(manifests):
        if not stage.features.has(feature):
            pytest.skip(f"no {feature}: {stage.features.missing[feature]}")
    try_manifests(stage, manifests, leaving)


@pytest.fixture(scope="module")
def leaving(session_stage: Stage) -> Iterator[list[Space]]:
    """Namespaces whose pods are going away while the next example runs already: their shell heeds no SIGTERM."""
    spaces: list[Space] = []
    yield spaces
    for space in spaces:
        space.close()
    session_stage.wait_clean()
