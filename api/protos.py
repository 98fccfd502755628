"""Generates the ``*_pb2.py`` and ``*_pb2.pyi`` modules beside the .proto files: ``python -m api.protos``.

The files are named to protoc from the repository's root (``api/kubelet/dra_v1.proto``), since that name is a file's key
in protobuf's process-wide descriptor pool, where upstream's files, all called api.proto, collide. Service stubs are not
generated: ``services`` beside them binds them, with types. Needs grpcio-tools, a development dependency.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent

# protoc writes a bare Mapping where a message may be given as a dict.
STUB_HEADER = "# mypy: disable-error-code=type-arg\n"


class GenerateError(Exception):
    """protoc refused a file; it has printed why to stderr."""


def proto_files() -> list[str]:
    """The .proto files by their name from the repository's root, sorted."""
    return sorted(path.relative_to(ROOT).as_posix() for path in FOLDER.rglob("*.proto"))


def generate(out: Path = ROOT) -> list[Path]:
    """Writes the modules under ``out`` and returns their paths. Raises :class:`GenerateError`."""
    from grpc_tools import protoc  # only developers have it, and only this function needs it

    includes = [f"-I{ROOT}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    names = proto_files()
    status = protoc.main(["protoc", *includes, f"--python_out={out}", f"--pyi_out={out}", *names])
    if status != 0:
        raise GenerateError(f"protoc failed with status {status} on {', '.join(names)}")
    written = []
    for name in names:
        module, stub = (out / name.replace(".proto", suffix) for suffix in ("_pb2.py", "_pb2.pyi"))
        stub.write_text(STUB_HEADER + stub.read_text())
        written += [module, stub]
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m api.protos", description="Generates the modules beside the .proto files."
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="root folder to write under (default: the repository)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        generate(options.out)
    except GenerateError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
