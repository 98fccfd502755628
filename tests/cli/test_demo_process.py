"""gpu-dra demo as a user runs it: real processes, real exit codes, and nothing left afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from dra_driver.kube.connect import connect
from dra_driver.kube.interface import PODS, RESOURCE_CLAIMS
from dra_driver.simulation import contained
from dra_driver.simulation.hardware import StateFile, faults
from tests.programs import Program, Starter, execute, fork

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parents[2]

TEMPLATE = """
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpu, namespace: default}
spec: {spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu.nvidia.com}}]}}}
"""
POD = """---
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: default, annotations: {ANNOTATIONS}}
spec:
  restartPolicy: RESTART
  containers: [{name: main, image: busybox, resources: {claims: [{name: gpu}]}}]
  resourceClaims: [{name: gpu, resourceClaimTemplateName: gpu}]
"""


def pod(name: str, restart: str = "Always", annotations: str = "") -> str:
    return POD.replace("NAME", name).replace("RESTART", restart).replace("ANNOTATIONS", annotations)


PROGRAM = "dra_driver.cli.main"


def environment(tmp_path: Path) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return {**outside, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}


def run(tmp_path: Path, *arguments: str, start: Starter = fork) -> subprocess.CompletedProcess[str]:
    env = environment(tmp_path)
    if arguments[0] == "get":
        env["TMPDIR"] = str(tmp_path)  # a demo that somebody has up beside the tests is not ours
    with tempfile.TemporaryDirectory(prefix="gd-") as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        program = start(PROGRAM, arguments, env, out, errors)
        try:
            code = program.wait(100)
        finally:
            program.kill()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), errors.read_text())


def start_demo(tmp_path: Path, log: Path, *options: str) -> Program:
    """Its output is in ``log``, which is there."""
    log.touch()
    return fork(PROGRAM, ["demo", *options], environment(tmp_path), log, log)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Short enough for sockets: a demo that is killed cannot remove the link it would need otherwise."""
    with tempfile.TemporaryDirectory(prefix="gd-") as folder:
        yield Path(folder)


def child_pids(output: str) -> list[int]:
    found = re.search(r"controller and plugins are processes ([0-9, ]+)", output)
    assert found, output
    return [int(pid) for pid in found.group(1).split(",")]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(check: Callable[[], bool], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def test_the_quickstart(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--folder", str(tmp_path / "c"), start=execute)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    table = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("quickstart-")}
    assert len(table) == 10
    assert table["quickstart-04/two-gpus"][-2:] in (["gpu-0", "gpu-1"], ["gpu-2", "gpu-3"], ["gpu-4", "gpu-5"])
    assert table["quickstart-03/first"][0] == table["quickstart-03/second"][0]
    assert table["quickstart-07/monitor"][-1] == "(8)"
    assert table["quickstart-09/waits-forever"][:4] == ["-", "Pending", "Pending", "ok"]
    assert re.search(r"^    main: /dev/nvidia\d \+ 4 control nodes, .*NVIDIA_VISIBLE_DEVICES=void", done.stdout, re.M)
    assert "16 devices exist, 16 fail selector" in done.stdout
    assert "no pod, claim, CDI file or checkpoint entry is left, all 16 devices are free" in done.stdout
    assert lines[-2].startswith("ok: 10 pods")
    assert not any(is_running(pid) for pid in child_pids(done.stdout))
    assert "Traceback" not in "".join(path.read_text() for path in (tmp_path / "c" / "logs").iterdir())


SHARING = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "sharing"


def test_the_ways_of_sharing_in_one_claim(tmp_path: Path) -> None:
    if not contained.is_possible():
        pytest.skip("this machine lets nobody but root have mounts of their own, and an MPS supervisor makes some")
    done = run(tmp_path, "demo", "--nodes", "1", "-f", str(SHARING / "02-time-slicing-and-mps.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    sees = dict(re.findall(r"^    ([\w-]+): (.*)$", done.stdout, re.M))
    by_mps = {name for name, view in sees.items() if "CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps" in view}
    assert (by_mps, set(sees) - by_mps) == ({"mps-1", "mps-2"}, {"sliced-1", "sliced-2"})


def test_shares_come_before_the_pods_that_want_them(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--nodes", "1", "-f", str(SHARING / "06-replicas.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("sharing-06/four-")]
    assert [row[-1] for row in rows] == ["gpu-0"] * 4
    assert "SharingConfigured is True on each node: nvidia.com/gpu: 4 shares of each of gpu-0" in done.stdout


def test_a_config_map_that_does_nothing_is_no_success(tmp_path: Path) -> None:
    """Though all pods run, each with a whole GPU: that is not what the ConfigMap asks for."""
    broken = tmp_path / "broken.yaml"
    broken.write_text((SHARING / "06-replicas.yaml").read_text().replace("replicas: 4\n---", "replicas: four\n---"))
    done = run(tmp_path, "demo", "--nodes", "1", "-f", str(broken), "--folder", str(tmp_path / "c"))
    assert done.returncode == 1, done.stdout + done.stderr
    sentence = "SharingConfigured is False on each node: ConfigMap gpu-operator/time-slicing-config, key any: "
    because = 'sharing.timeSlicing.resources[0].replicas: must be a whole number, not "four"; nothing is shared by it'
    assert re.search(rf"^ +\S+ s  {re.escape(sentence + because)}$", done.stdout, re.M)
    assert re.search(rf"^failed after \S+ s: {re.escape(sentence + because)}$", done.stdout, re.M)
    assert len(re.findall(r"^sharing-06/four-\d .* Running +Running +ok", done.stdout, re.M)) == 4


def test_a_conflict_is_expected_and_told(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--nodes", "1", "-f", str(SHARING / "07-conflict.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(re.findall(r"^    waits: (.*)$", done.stdout, re.M))
    assert re.search(r"claim sharing-07/(long|short):\S+ has asked for (Long|Short)", told)
    assert "it is not offered as MPS replicas" in told


WRONG_KIND = """
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpu, namespace: default}
spec:
  spec:
    devices:
      requests: [{name: gpu, REQUEST}]
      config:
      - requests: [gpu]
        opaque:
          driver: gpu.nvidia.com
          parameters:
            apiVersion: resource.nvidia.com/v1beta1
            kind: MigDeviceConfig
            sharing: {strategy: MPS}
"""


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("exactly: {deviceClassName: gpu.nvidia.com}", "Refused"),
        ("firstAvailable: [{name: whole, deviceClassName: gpu.nvidia.com}]", "Running"),
    ],
)
def test_a_configuration_of_another_kind_for_the_request(tmp_path: Path, request_: str, expected: str) -> None:
    manifest = tmp_path / "kind.yaml"
    manifest.write_text(
        WRONG_KIND.replace("REQUEST", request_) + pod("a", annotations=f"gpu-dra.dev/expect: {expected}")
    )
    done = run(tmp_path, "demo", "--nodes", "1", "--machine", "a30", "-f", str(manifest))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("MigDeviceConfig cannot be applied to device gpu-0 of type gpu" in done.stdout) is (expected == "Refused")


def test_own_manifests_that_end_and_one_that_does_not_reach_its_state(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(TEMPLATE + pod("ends", restart="Never") + pod("runs"))
    done = run(tmp_path, "demo", "--nodes", "1", "--machine", "a30", "-f", str(good))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok: 2 pods" in done.stdout
    bad = tmp_path / "bad.yaml"
    bad.write_text(TEMPLATE + pod("a") + pod("b") + pod("c"))
    done = run(tmp_path, "demo", "--nodes", "1", "--machine", "a30", "-f", str(bad), "--timeout", "4")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 devices exist, 2 in use by claims default/" in done.stdout
    assert "failed after" in done.stdout
    folder = Path(re.search(r"all files of the cluster: (\S+)", done.stdout).group(1))  # type: ignore[union-attr]
    assert (folder / "logs" / "controller.log").is_file()
    subprocess.run(["rm", "-r", str(folder)], check=True)


def test_time_slices_are_set_while_a_pod_has_them_and_gone_afterwards(tmp_path: Path, short_folder: Path) -> None:
    """NVIDIA's manifest: two pods, one claim, GpuConfig with Long slices."""
    example = ROOT / "deploy/examples/sharing/01-time-slicing.yaml"
    log = tmp_path / "out"
    demo = start_demo(tmp_path, log, "--keep", "--nodes", "1", "-f", str(example), "--folder", str(short_folder))
    try:
        wait_for(lambda: "stays up until Ctrl-C" in log.read_text())
        state = StateFile(next(short_folder.glob("**/gpus.json")))
        assert sorted(gpu.time_slice for gpu in state.read().gpus) == [0] * 7 + [3]
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=30) == 0, log.read_text()
    finally:
        demo.kill()
        demo.wait()
    assert "left behind" not in log.read_text()


def test_a_manifest_that_the_api_refuses(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(TEMPLATE.replace("deviceClassName: gpu.nvidia.com", "count: 1"))
    done = run(tmp_path, "demo", "--nodes", "1", "-f", str(bad))
    assert done.returncode == 2
    assert "bad.yaml: ResourceClaimTemplate default/gpu was refused" in done.stderr
    assert "deviceClassName" in done.stderr
    assert not any(is_running(pid) for pid in child_pids(done.stdout))


def test_two_objects_of_one_name_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    for name, text in (("a.yaml", TEMPLATE), ("b.yaml", TEMPLATE.replace("name: gpu, e", "name: other, e"))):
        (tmp_path / name).write_text(text)
    done = run(tmp_path, "demo", "--nodes", "1", "-f", str(tmp_path))
    assert done.returncode == 2
    assert (
        "ResourceClaimTemplate default/gpu is there twice with different content, "
        f"in {tmp_path}/a.yaml, document 1 and in {tmp_path}/b.yaml, document 1; remove or rename one"
    ) in done.stderr
    assert done.stdout == ""


def test_a_demo_that_is_kept_can_be_asked_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(TEMPLATE + pod("p"))
    log = tmp_path / "out"
    demo = start_demo(tmp_path, log, "--keep", "--nodes", "1", "-f", str(manifest))
    try:
        wait_for(lambda: "stays up until Ctrl-C" in log.read_text())
        asked = run(tmp_path, "get", "claims")
        assert "allocated,reserved" in asked.stdout, asked.stderr
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=30) == 0, log.read_text()
    finally:
        demo.kill()
        demo.wait()
    assert run(tmp_path, "get", "claims").returncode == 1
    assert not any(is_running(pid) for pid in child_pids(log.read_text()))


def test_a_demo_that_is_kept_takes_away_what_its_user_made(tmp_path: Path, short_folder: Path) -> None:
    """Pods and claims made meanwhile, and a GPU that was lost meanwhile, do not make it fail at its end."""
    manifest = tmp_path / "m.yaml"
    manifest.write_text(TEMPLATE + pod("p"))
    log = tmp_path / "out"
    demo = start_demo(tmp_path, log, "--keep", "--nodes", "1", "-f", str(manifest), "--folder", str(short_folder))
    try:
        wait_for(lambda: "stays up until Ctrl-C" in log.read_text())
        api = connect(str(next(short_folder.glob("**/kubeconfig"))))
        claim = yaml.safe_load(TEMPLATE)["spec"]
        api.create(RESOURCE_CLAIMS, {"metadata": {"name": "mine", "namespace": "default"}, **claim})
        api.create(PODS, yaml.safe_load(pod("mine").strip("-\n")))
        wait_for(lambda: api.get(PODS, "mine", "default")["status"].get("phase") == "Running")
        faults.lose_gpu(next(short_folder.glob("**/gpus.json")), 7)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=30) == 0, log.read_text()
    finally:
        demo.kill()
        demo.wait()
    assert "left behind" not in log.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_demo_that_is_ended_leaves_no_process(
    tmp_path: Path, short_folder: Path, number: signal.Signals, code: int
) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(TEMPLATE + pod("never", annotations="gpu-dra.dev/expect: Pending"))
    log = tmp_path / "out"
    demo = start_demo(tmp_path, log, "--nodes", "1", "-f", str(manifest), "--folder", str(short_folder))
    try:
        wait_for(lambda: "processes" in log.read_text())
        demo.send_signal(number)
        assert demo.wait(timeout=30) == code, log.read_text()
    finally:
        demo.kill()
        demo.wait()
    wait_for(lambda: not any(is_running(pid) for pid in child_pids(log.read_text())))


FRACTIONS = SHARING.parent / "fractions"


@pytest.mark.parametrize(
    ("driver", "backend"), [((), "Mps"), (("--driver", "615.71.09"), "MpsNamespace")], ids=["own", "615"]
)
def test_the_folder_of_fractions(tmp_path: Path, driver: tuple[str, ...], backend: str) -> None:
    """With its DriverConfiguration, and fenced by what the GPUs' driver has: the demo's containers have no cgroup."""
    if not contained.is_possible():
        pytest.skip("this machine lets nobody but root have mounts of their own, and an MPS supervisor makes some")
    done = run(tmp_path, "demo", "--nodes", "1", "-f", str(FRACTIONS), *driver, "--folder", str(tmp_path / "c"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.startswith("fractions-")}
    assert [rows[f"fractions-01/{pod}"][2:] for pod in ("first", "second")] == [
        ["Running", "Running", "ok", "gpu-0"]
    ] * 2
    assert {rows[f"fractions-0{pod}"][2] for pod in ("3/enforced", "4/elastic", "5/first")} == {"Pending"}
    assert f"(fenced by {backend})" in done.stdout
    (first,) = re.findall(r"^fractions-01/first .*\n +main: (.*)$", done.stdout, re.M)
    assert "CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps" in first
    assert re.search(r"CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=GPU-[0-9a-f-]+=10240M", first)
    assert "no pod, claim, CDI file or checkpoint entry is left, all 8 devices are free" in done.stdout


CONFIGURATION = """
apiVersion: gpu-dra.dev/v1alpha1
kind: DriverConfiguration
spec: {sharing: {rules: [{fractions: {STEP}}]}}
"""


def test_a_driver_configuration_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "driver.yaml").write_text(CONFIGURATION.replace("STEP", "memoryStep: much"))
    (tmp_path / "m.yaml").write_text(TEMPLATE)
    done = run(tmp_path, "demo", "-f", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"gpu-dra demo: {tmp_path}/driver.yaml, document 1: DriverConfiguration: ")
    assert 'spec.sharing.rules[0].fractions.memoryStep: must be a quantity of memory, not "much"' in done.stderr


def test_two_driver_configurations(tmp_path: Path) -> None:
    for name, step in (("a.yaml", "memoryStep: 1Gi"), ("b.yaml", "memoryStep: 2Gi"), ("c.yaml", "memoryStep: 1Gi")):
        (tmp_path / name).write_text(CONFIGURATION.replace("STEP", step))
    (tmp_path / "m.yaml").write_text(TEMPLATE)
    done = run(tmp_path, "demo", "-f", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        f"{tmp_path}/b.yaml, document 1: a second DriverConfiguration, the other one is in {tmp_path}/a.yaml, document 1; "
        "keep one of them"
    ) in done.stderr


def test_a_driver_that_is_no_version(tmp_path: Path) -> None:
    done = run(tmp_path, "demo", "--driver", "nonsense")
    assert done.returncode == 2
    assert done.stderr == "gpu-dra demo: --driver: a driver version looks like 580.105.08\n"
