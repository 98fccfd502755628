"""The committed ``*_pb2`` modules are what the .proto files say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from api import protos


def serialised_file(module: Path) -> bytes:
    """The descriptor in a generated module; compared instead of text, which changes with protoc's version."""
    literal = re.search(r"AddSerializedFile\((b'.*')\)", module.read_text())
    assert literal is not None, f"{module} holds no descriptor"
    return eval(literal.group(1))  # type: ignore[no-any-return]  # noqa: S307  a bytes literal of our own generated file


def test_committed_modules_describe_the_proto_files(tmp_path: Path) -> None:
    protos.generate(tmp_path)
    for name in protos.proto_files():
        fresh = tmp_path / name.replace(".proto", "_pb2.py")
        committed = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        assert committed.DESCRIPTOR.serialized_pb == serialised_file(fresh), f"{name} changed: run `make proto`"


def test_committed_stubs_are_current(tmp_path: Path) -> None:
    written = [path for path in protos.generate(tmp_path) if path.suffix == ".pyi"]
    assert len(written) == 6
    for path in written:
        assert path.read_text() == (protos.ROOT / path.relative_to(tmp_path)).read_text()


def test_no_grpc_modules_are_committed() -> None:
    assert not list(protos.FOLDER.rglob("*_pb2_grpc.py"))


def test_names_in_the_descriptor_pool_are_distinct() -> None:
    names = protos.proto_files()
    assert names == [
        f"api/kubelet/{name}.proto"
        for name in ("dra_v1", "dra_v1beta1", "health_v1", "health_v1alpha1", "registration_v1")
    ] + ["api/mps/supervisor_v1.proto"]


def test_a_refused_file_is_an_error_and_a_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "api" / "kubelet"
    bad.mkdir(parents=True)
    (bad / "broken.proto").write_text("this is no proto file")
    monkeypatch.setattr(protos, "ROOT", tmp_path)
    monkeypatch.setattr(protos, "FOLDER", bad)
    with pytest.raises(protos.GenerateError, match=r"broken\.proto"):
        protos.generate(tmp_path)
    assert protos.main(["--out", str(tmp_path)]) == 1
