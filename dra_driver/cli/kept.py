"""The demo that was left up: where `gpu-dra get` finds it.

One file per user, in $XDG_RUNTIME_DIR or, where a shell has none, in the folder for temporary files, with the
kubeconfig's path and the process id of the demo. It is looked for in both: two shells of one user may differ in that
variable (su, ssh, a service). A file whose process is gone is ignored.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from dra_driver.files import write_atomically


@dataclass(frozen=True, slots=True)
class KeptDemo:
    kubeconfig: str
    folder: str
    pid: int

    def is_alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return False  # the id belongs to somebody else's process by now
        return Path(self.kubeconfig).is_file()


def locations() -> tuple[Path, ...]:
    """Where the file may be, the place to write it first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    folders = [Path(runtime), Path(tempfile.gettempdir())]
    return tuple(folder / f"gpu-dra-demo-{os.getuid()}.json" for folder in folders if folder.is_dir())


def write(demo: KeptDemo) -> None:
    write_atomically(locations()[0], json.dumps(asdict(demo)).encode(), mode=0o600)


def forget(pid: int) -> None:
    """Remove the file if it is this process's."""
    for path in locations():
        demo = _read(path)
        if demo is not None and demo.pid == pid:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def read() -> KeptDemo | None:
    """The running demo, or None."""
    return next((demo for demo in map(_read, locations()) if demo is not None), None)


def _read(path: Path) -> KeptDemo | None:
    """A file of another user in a shared folder is not trusted."""
    try:
        if path.stat().st_uid != os.getuid():
            return None
        demo = KeptDemo(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return demo if demo.is_alive() else None
