"""Where a driver's programs are below a driver root: one list, for CDI files and for those that the plugin runs."""

from __future__ import annotations

from pathlib import Path

from dra_driver.hardware.rooted import resolve_inside

PROGRAM_FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin", "/opt/bin")


def find_program(root: Path, name: str) -> Path | None:
    """The file of the program, as this process sees it, links followed inside ``root``; None when there is none."""
    for folder in PROGRAM_FOLDERS:
        try:
            found = resolve_inside(root, f"{folder}/{name}")
        except OSError:  # a circle of links
            continue
        if found.is_file():
            return found
    return None
