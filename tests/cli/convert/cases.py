"""Inputs with their expected outputs: ``cases/<name>.yaml`` and ``cases/<name>.out.yaml``.

``python -m tests.cli.convert.cases`` writes the outputs again, for a look at the difference.
"""

from __future__ import annotations

from pathlib import Path

from dra_driver.cli.convert import sizes
from dra_driver.cli.convert.converting import Converted, Options, convert
from dra_driver.cli.convert.documents import Source

FOLDER = Path(__file__).parent / "cases"
CASES = {
    "hami-amounts": Options(),
    "hami-percentages": Options(sizes.parse((), ("H100=79Gi", "A100-SXM4-40GB=39Gi"))),
    "hami-where": Options(),
    "kai": Options(sizes.parse(("39Gi",), ())),
    "kai-keep-scheduler": Options(keep_scheduler=True),
    "volcano": Options(sizes.parse(("79Gi,39Gi",), ())),
    "device-plugin": Options(),
    "device-plugin-config": Options(),
    "list": Options(),
    "quota": Options(),
}


def converted(text: str, options: Options | None = None) -> Converted:
    return convert([Source("in.yaml", text)], options or Options())


def given(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text()


def expected(name: str) -> str:
    return (FOLDER / f"{name}.out.yaml").read_text()


if __name__ == "__main__":
    for case, case_options in CASES.items():
        (FOLDER / f"{case}.out.yaml").write_text(converted(given(case), case_options).text)
