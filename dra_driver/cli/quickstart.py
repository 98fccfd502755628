"""Where the shipped examples are: in a checkout under deploy/examples, in an installed wheel beside this module."""

from __future__ import annotations

from pathlib import Path


class ExamplesNotFoundError(Exception):
    """Neither a checkout nor a complete installation."""


def quickstart_files() -> list[Path]:
    """The quickstart manifests in the order of their names."""
    here = Path(__file__).resolve().parent
    # In a checkout (also an editable installation) the files of the checkout are the ones a developer edits.
    folders = [here.parents[1] / "deploy" / "examples" / "quickstart", here / "examples" / "quickstart"]
    for folder in folders:
        if files := sorted(folder.glob("*.yaml")):
            return files
    looked = " and ".join(str(folder) for folder in folders)
    raise ExamplesNotFoundError(f"no examples found in {looked}; give your own manifests with -f")
