"""Mounts for groups, and programs in the surroundings that they need. Needs CAP_SYS_ADMIN; a contract test holds it
against what the other parts are tested with.

A program is started from a thread that has gone into the namespaces, changed its own root, and ends afterwards: on
Linux both belong to a thread (setns(2), unshare(2) with CLONE_FS), and a child gets its parent thread's. So no helper
program is needed on the host, and nothing of this process changes.

A group's tmpfs is mounted where we are, and must appear on the host: the plugin's folder is mounted into our container
with bidirectional propagation.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from kubelet_plugin.mps_supervisor import kernel
from kubelet_plugin.mps_supervisor.surroundings import Program, Surroundings

T = TypeVar("T")

_MOUNTS = Path("/proc/self/mountinfo")
_TMPFS_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_RELATIME


class Isolation(Protocol):
    """Mounts and programs. What fails raises OSError."""

    def mount_tmpfs(self, folder: Path, size_kib: int) -> None:
        """A tmpfs of at most ``size_kib`` on ``folder``; one that is there is kept."""
        ...

    def unmount(self, folder: Path) -> None:
        """Nothing is mounted on ``folder`` any more, be it in use or not."""
        ...

    def mounted_below(self, folder: Path) -> tuple[Path, ...]:
        """Where something is mounted in ``folder``, deepest first, by paths that begin with it."""
        ...

    def start(
        self, program: Program, arguments: Sequence[str], *, standard_input: int, output: int
    ) -> subprocess.Popen[bytes]:
        """``program`` in a session of its own, in its surroundings. Standard error goes where ``output`` does.

        Both are descriptors (:func:`no_input`) or subprocess.PIPE.
        """
        ...


class Namespaces:
    """The real :class:`Isolation`."""

    def mount_tmpfs(self, folder: Path, size_kib: int) -> None:
        if folder in self.mounted_below(folder):
            return
        # Options and size as NVIDIA's driver has them (its cmd/gpu-kubelet-plugin/sharing.go).
        kernel.mount("shm", str(folder), "tmpfs", _TMPFS_FLAGS, f"size={size_kib}k")

    def unmount(self, folder: Path) -> None:
        while True:  # until all that was mounted there, one over the other, is gone
            try:
                kernel.unmount(str(folder), kernel.UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.ENOENT):  # no mount point (any more)
                    return
                if error.errno != errno.EBUSY:
                    raise
                kernel.unmount(str(folder), kernel.UMOUNT_NOFOLLOW | kernel.MNT_DETACH)

    def mounted_below(self, folder: Path) -> tuple[Path, ...]:
        real = folder.resolve()  # the kernel names no links (proc(5)), and /var/lib/kubelet may be one
        found = (Path(_unescaped(line.split()[4])) for line in _MOUNTS.read_text().splitlines())
        inside = {folder / each.relative_to(real) for each in found if each.is_relative_to(real)}
        return tuple(sorted(inside, key=lambda each: len(each.parts), reverse=True))

    def start(
        self, program: Program, arguments: Sequence[str], *, standard_input: int, output: int
    ) -> subprocess.Popen[bytes]:
        def started() -> subprocess.Popen[bytes]:
            _go_into(program.surroundings)
            return spawn(program, arguments, standard_input=standard_input, output=output)

        return on_own_thread(started)


@contextmanager
def no_input() -> Iterator[int]:
    """A descriptor of /dev/null. It has to be opened here: in the surroundings there may be none."""
    descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def endless_input(folder: Path) -> Iterator[int]:
    """A descriptor on which nothing ever comes, and no end either, whoever ends: a FIFO that holds itself open.

    A daemon of protocol 3 in the foreground reads commands from its standard input and ends with it (KAI's
    gpu-fractioning, fractioning-manager/mpsd/internal/supervisor.go).
    """
    fifo = folder / f"input.{os.getpid()}.{threading.get_ident()}"
    os.mkfifo(fifo, 0o600)
    try:
        descriptor = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    finally:
        fifo.unlink()
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def spawn(program: Program, arguments: Sequence[str], *, standard_input: int, output: int) -> subprocess.Popen[bytes]:
    """Start ``program`` here and now."""
    return subprocess.Popen(
        [program.path, *arguments],
        stdin=standard_input,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(program.environment),
        cwd="/",
        start_new_session=True,
    )


def on_own_thread(act: Callable[[], T]) -> T:
    """``act`` on a thread that ends with it: it may change what belongs to a thread."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - raised again below, by the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="mps-namespaces", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _go_into(around: Surroundings) -> None:
    """This very thread."""
    kernel.unshare(kernel.CLONE_FS)
    for file in around.namespaces:  # "mnt" is the last, since with it /proc becomes another
        kernel.enter_namespace(file)
    if around.binds or around.scratch:
        kernel.unshare(kernel.CLONE_NEWNS)
        # Nothing of ours appears elsewhere, but what is unmounted on the host goes away here too.
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
        for target in around.scratch:
            kernel.mount("tmpfs", target, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV)
        for folder in around.folders:
            os.makedirs(folder)
        for bind in around.binds:
            kernel.mount(bind.source, bind.target, None, kernel.MS_BIND | kernel.MS_REC)
    if around.root != "/":
        os.chroot(around.root)
        os.chdir("/")


def _unescaped(text: str) -> str:
    """A path of mountinfo, where blanks and backslashes are written in octal (proc(5))."""
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
