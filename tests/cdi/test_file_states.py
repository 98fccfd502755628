"""A look at many files sees what one at each of them would, links followed inside the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.cdi.file_states import Look, watched
from dra_driver.cdi.roots import Root
from dra_driver.hardware.rooted import resolve_inside


@pytest.fixture
def root(tmp_path: Path) -> Root:
    for folder in ("real/deep", "usr/share"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "real/deep/file").write_text("x")
    for link, target in {
        "usr/lib": "/real/deep",
        "usr/share/back": "../../real",
        "usr/share/out": "../../../../real",
        "real/deep/other": "file",
        "real/dead": "/nowhere",
        "real/circle": "circle",
    }.items():
        (tmp_path / link).symlink_to(target)
    return Root(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/real/deep/file",
        "/usr/lib/file",
        "/usr/lib/other",
        "/usr/share/back/deep/file",
        "/usr/share/out/deep/file",
        "/usr/lib/../deep/file",
        "/../usr/lib/file",
        "/usr/lib",
        "/usr/share/",
        "/usr",
    ],
)
def test_what_is_there(root: Root, path: str) -> None:
    found = resolve_inside(root.visible, path).lstat()
    state = (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_rdev)
    assert Look().state(watched(root, path)) == state
    assert Look().identity(watched(root, path)) == (*state[:2], 0, state[3])


@pytest.mark.parametrize(
    "path", ["/none/at/all", "/usr/none", "/real/deep/file/below", "/real/circle/file", "/real/dead/file", "/run/x"]
)
def test_what_is_not_there(root: Root, path: str) -> None:
    assert Look().state(watched(root, path)) is None
    (root.visible / "run").mkdir()
    assert Look().state(watched(root, path)) is None


def test_a_folder_that_has_come_is_seen_at_the_next_look(root: Root) -> None:
    place = watched(root, "/nowhere/file")
    through = watched(root, "/real/dead/file")
    assert (Look().state(place), Look().state(through)) == (None, None)
    (root.visible / "nowhere").mkdir()
    (root.visible / "nowhere/file").touch()
    assert Look().state(place) == Look().state(through) != None  # noqa: E711 - of both
