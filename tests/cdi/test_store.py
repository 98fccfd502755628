"""The folder of CDI files: names, atomic writes, what is ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dra_driver.cdi.spec import ContainerEdits, Device, Spec, SpecError
from dra_driver.cdi.store import CdiStore
from dra_driver.errors import StateError

UID = "bbf84a7a-cf47-48e6-b59c-6a412dede17e"


def spec_of(store: CdiStore, value: str = "1") -> Spec:
    return Spec(store.names.kind, (Device(store.names.device_name(UID, "gpu-1"), ContainerEdits(env=(f"A={value}",))),))


def test_names_are_nvidias(tmp_path: Path) -> None:
    store = CdiStore(tmp_path)
    assert store.path(UID).name == f"k8s.gpu.nvidia.com-claim_{UID}.yaml"
    assert store.names.device_id(UID, "gpu-1") == f"k8s.gpu.nvidia.com/claim={UID}-gpu-1"
    assert store.names.device_id(UID, "gpu-1", "5afb").endswith(f"{UID}-gpu-1-5afb")
    assert spec_of(store).device_id("x") == "k8s.gpu.nvidia.com/claim=x"


def test_a_removal_outlives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim's record goes after the file; a file that came back without it would pass for another driver's."""
    store = CdiStore(tmp_path)
    store.write(UID, spec_of(store))
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        "dra_driver.cdi.store.sync_folder", lambda folder: synced.append((folder, store.path(UID).exists()))
    )
    assert store.remove(UID)
    assert synced == [(tmp_path, False)]


def test_write_read_remove(tmp_path: Path) -> None:
    store = CdiStore(tmp_path / "not" / "yet")
    assert store.claim_uids() == ()
    assert store.read(UID) is None
    assert not store.holds(UID, spec_of(store))
    store.write(UID, spec_of(store))
    assert store.holds(UID, spec_of(store))
    assert not store.holds(UID, spec_of(store, "2"))
    assert store.read(UID) == spec_of(store)
    assert store.claim_uids() == (UID,)
    assert stat.S_IMODE(store.path(UID).stat().st_mode) == 0o644
    assert os.listdir(store.root) == [store.path(UID).name]
    assert store.remove(UID)
    assert not store.remove(UID)
    assert store.claim_uids() == ()


def test_only_own_files_are_listed(tmp_path: Path) -> None:
    store = CdiStore(tmp_path)
    store.write(UID, spec_of(store))
    for name in ("k8s.gpu.nvidia.com-claim_.yaml", "nvidia.yaml", "k8s.gpu.nvidia.com-claim_x.json", ".x.tmp"):
        (tmp_path / name).write_text("x")
    CdiStore(tmp_path, "other.example").write(UID, spec_of(store))
    assert store.claim_uids() == (UID,)


def test_a_uid_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    for uid in ("../x", "", "a/b", ".", "a\n"):
        with pytest.raises(StateError, match="UID"):
            CdiStore(tmp_path).path(uid)


def test_errors_name_the_file(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    store = CdiStore(blocker / "cdi")
    with pytest.raises(StateError, match="cannot write CDI file"):
        store.write(UID, spec_of(store))
    with pytest.raises(StateError, match="cannot list CDI folder"):
        store.claim_uids()


def test_a_damaged_file_is_an_error_not_a_spec(tmp_path: Path) -> None:
    store = CdiStore(tmp_path)
    store.path(UID).write_text("---\nkind: 1\n")
    with pytest.raises(SpecError, match=UID):
        store.read(UID)


def test_whether_a_power_cut_takes_its_files(tmp_path: Path) -> None:
    in_memory = next(
        (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " tmpfs " in line), ""
    )
    if in_memory:
        assert CdiStore(Path(in_memory) / "not" / "yet").is_volatile
    assert not CdiStore(Path("/proc") / "cdi").is_volatile
