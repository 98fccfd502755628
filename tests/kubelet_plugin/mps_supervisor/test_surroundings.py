"""Where a daemon runs on the nodes that there are: driver on the host, in a driver container, in a folder (GKE)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.cdi.roots import Root
from dra_driver.mps.errors import GroupFailed
from dra_driver.mps.group import NAMED, GroupFolders
from kubelet_plugin.mps_supervisor.surroundings import MARK, Bind, Home, Surroundings, host_namespaces

KUBELET = Path("/var/lib/kubelet/plugins/gpu.nvidia.com/mps")
SHORT, LONG = GroupFolders(KUBELET / "c1"), GroupFolders(KUBELET / "0f6b0e4d-0000-4000-8000-000000000000-ab12f")
OURS = {"PATH": "/opt/gpu-dra/bin", "CUDA_VISIBLE_DEVICES": "1", "LD_PRELOAD": "x", "NVIDIA_Y": "z", "OTHER": "kept"}


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """/proc/1 of a host."""
    for folder in ("ns", "root/mnt", "root/tmp"):
        (tmp_path / "proc" / folder).mkdir(parents=True)
    return tmp_path / "proc"


def driver(root: Path, host: str, *files: str) -> Root:
    for file in ("usr/bin/nvidia-cuda-mps-control", *files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")
    return Root(root, host)


def entered(process: Path) -> tuple[str, ...]:
    return tuple(f"{process}/ns/{kind}" for kind in ("cgroup", "ipc", "uts", "net", "mnt"))


def test_a_driver_on_the_host_runs_there_with_nothing_of_our_container(tmp_path: Path, process: Path) -> None:
    home = Home(driver(tmp_path / "d", "/"), namespaces=process / "ns", environment=OURS)
    program = home.daemon(SHORT, ("GPU-a", "GPU-b"))
    assert program.path == "/usr/bin/nvidia-cuda-mps-control"
    assert program.surroundings == Surroundings(entered(process), binds=(Bind(str(SHORT.shm), "/dev/shm"),))
    assert program.environment == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/bin",
        MARK: str(SHORT.root),
        "CUDA_MPS_PIPE_DIRECTORY": str(SHORT.pipe),
        "CUDA_MPS_LOG_DIRECTORY": str(SHORT.log),
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
    }


def test_a_pipe_directory_with_too_long_a_name_gets_a_short_one_that_nobody_else_sees(
    tmp_path: Path, process: Path
) -> None:
    home = Home(driver(tmp_path / "d", "/"), namespaces=process / "ns")
    program = home.client(LONG, home.control())
    assert program.surroundings == Surroundings(
        entered(process),
        scratch=("/mnt",),
        folders=("/mnt/gpu-dra-mps",),
        binds=(Bind(str(LONG.root), "/mnt/gpu-dra-mps"),),
    )
    assert program.environment["CUDA_MPS_PIPE_DIRECTORY"] == "/mnt/gpu-dra-mps/pipe"
    assert program.environment["CUDA_MPS_LOG_DIRECTORY"] == "/mnt/gpu-dra-mps/log"
    assert program.environment[MARK] == str(LONG.root)


def test_the_sockets_of_shares_need_a_shorter_name_still(tmp_path: Path, process: Path) -> None:
    home = Home(driver(tmp_path / "d", "/"), namespaces=process / "ns")
    program = home.client(SHORT, home.control(), NAMED)
    assert program.environment["CUDA_MPS_PIPE_DIRECTORY"] == "/mnt/gpu-dra-mps/pipe"
    inside = GroupFolders(Path("/mnt/gpu-dra-mps"))
    assert len(str(inside.share("x" * 64) / "control")) <= 107
    shortest = GroupFolders(Path("/k/mps/c"))
    assert home.client(shortest, home.control(), NAMED).environment["CUDA_MPS_PIPE_DIRECTORY"] == "/k/mps/c/pipe"


def test_a_program_alone_has_nobodys_pipe_directory_and_no_mark(tmp_path: Path, process: Path) -> None:
    home = Home(driver(tmp_path / "d", "/"), namespaces=process / "ns")
    program = home.alone(home.control())
    assert not Path(program.environment["CUDA_MPS_PIPE_DIRECTORY"]).exists()
    assert MARK not in program.environment
    assert program.surroundings == Surroundings(entered(process))


def test_a_folder_that_is_needed_is_not_hidden(tmp_path: Path, process: Path) -> None:
    home = Home(driver(tmp_path / "d", "/"), namespaces=process / "ns")
    kubelet = GroupFolders(Path("/mnt") / LONG.root.relative_to("/"))
    assert home.client(kubelet, home.control()).surroundings.scratch == ("/tmp",)
    (process / "root/tmp").rmdir()
    with pytest.raises(GroupFailed, match=r"none of /mnt, /media, /tmp can be hidden"):
        home.client(kubelet, home.control())


def test_a_driver_container_is_the_root_of_its_programs(tmp_path: Path, process: Path) -> None:
    root = driver(tmp_path / "d", "/run/nvidia/driver", "lib64/ld-linux-x86-64.so.2", "tmp/x", "dev/shm/x")
    program = Home(root, namespaces=process / "ns").daemon(SHORT, ("GPU-a",))
    assert program.path == "/usr/bin/nvidia-cuda-mps-control"
    assert program.surroundings == Surroundings(
        entered(process),
        scratch=("/run/nvidia/driver/tmp",),
        folders=("/run/nvidia/driver/tmp/gpu-dra-mps",),
        binds=(
            Bind(str(SHORT.root), "/run/nvidia/driver/tmp/gpu-dra-mps"),
            Bind(str(SHORT.shm), "/run/nvidia/driver/dev/shm"),
        ),
        root="/run/nvidia/driver",
    )
    assert program.environment["CUDA_MPS_PIPE_DIRECTORY"] == "/tmp/gpu-dra-mps/pipe"
    assert "LD_LIBRARY_PATH" not in program.environment


def test_a_folder_with_nothing_but_a_driver_gives_its_libraries(tmp_path: Path, process: Path) -> None:
    root = driver(tmp_path / "d", "/home/kubernetes/bin/nvidia", "lib64/libcuda.so.1")
    program = Home(root, namespaces=process / "ns").daemon(SHORT, ("GPU-a",))
    assert program.path == "/home/kubernetes/bin/nvidia/usr/bin/nvidia-cuda-mps-control"
    assert program.surroundings.root == "/"
    assert program.environment["LD_LIBRARY_PATH"] == "/home/kubernetes/bin/nvidia/lib64"
    assert program.environment["PATH"].endswith(":/home/kubernetes/bin/nvidia/usr/bin")


def test_where_there_is_no_host_around_us_our_environment_goes_on_but_for_what_misleads(tmp_path: Path) -> None:
    home = Home(driver(tmp_path / "d", str(tmp_path / "d")), namespaces=None, environment=OURS)
    program = home.daemon(SHORT, ("GPU-a",))
    assert program.surroundings == Surroundings(binds=(Bind(str(SHORT.shm), "/dev/shm"),))
    assert program.path == str(tmp_path / "d/usr/bin/nvidia-cuda-mps-control")
    assert {name for name in program.environment if name in OURS} == {"PATH", "CUDA_VISIBLE_DEVICES", "OTHER"}
    assert program.environment["CUDA_VISIBLE_DEVICES"] == "GPU-a"


def test_a_driver_without_mps_says_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(GroupFailed, match=r"below driver root /run/nvidia/driver; looked for /usr/bin/nvidia-cuda"):
        Home(Root(tmp_path / "d", "/run/nvidia/driver"), namespaces=None).daemon(SHORT, ())


def test_the_host_is_around_us_when_process_one_lives_elsewhere(tmp_path: Path) -> None:
    assert host_namespaces(Path("/proc/self/ns")) is None
    assert host_namespaces(tmp_path) is None
    (tmp_path / "mnt").symlink_to("mnt:[1]")
    assert host_namespaces(tmp_path) == tmp_path
