"""The demo that was left up: where `gpu-dra get` finds it.

One file per user, in $XDG_RUNTIME_DIR or the folder for temporary files, with the kubeconfig's path and the process id
of the demo; a file whose process is gone is ignored.
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


def location() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    return folder / f"gpu-dra-demo-{os.getuid()}.json"


def write(demo: KeptDemo) -> None:
    write_atomically(location(), json.dumps(asdict(demo)).encode(), mode=0o600)


def forget(pid: int) -> None:
    """Remove the file if it is this process's."""
    demo = read()
    if demo is not None and demo.pid == pid:
        with contextlib.suppress(FileNotFoundError):
            location().unlink()


def read() -> KeptDemo | None:
    """The running demo, or None. A file of another user in a shared folder is not trusted."""
    path = location()
    try:
        if path.stat().st_uid != os.getuid():
            return None
        demo = KeptDemo(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return demo if demo.is_alive() else None
