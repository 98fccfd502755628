"""Rows of the demo's table, and how they are printed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dra_driver.cli.demo_output import LiveOutput, PlainOutput
from dra_driver.cli.demo_rows import PodRow, claim_names, describe_view, lost_row, pod_row
from dra_driver.cli.expectations import Expectation, State
from dra_driver.kube.interface import Obj
from dra_driver.simulation.runtime.runtime import ContainerView, DeviceNode, Mount
from tests.allocator.builders import allocated, claim, request

RUNNING = Expectation(State.RUNNING)


def node(path: str) -> DeviceNode:
    return DeviceNode(path=path, host_path=path, type="c", major=195, minor=0)


def view(*paths: str, **env: str) -> ContainerView:
    mounts = (Mount("/a", "/a"), Mount("/b", "/b"))
    return ContainerView("demo", "p", "uid", "main", env=env, device_nodes=tuple(map(node, paths)), mounts=mounts)


POD: Obj = {
    "metadata": {"name": "p", "namespace": "demo", "uid": "uid"},
    "spec": {
        "nodeName": "n",
        "containers": [{"name": "main", "env": [{"name": "OWN", "value": "1"}]}],
        "resourceClaims": [{"name": "a", "resourceClaimName": "mine"}, {"name": "b", "resourceClaimTemplateName": "t"}],
    },
    "status": {
        "phase": "Running",
        "resourceClaimStatuses": [{"name": "b", "resourceClaimName": "p-b-x"}],
        "extendedResourceClaimStatus": {"resourceClaimName": "p-extended"},
    },
}


def test_claims_of_a_pod() -> None:
    assert claim_names(POD) == ["mine", "p-b-x", "p-extended"]


def test_a_claim_that_is_not_prepared_says_why_until_it_is() -> None:
    waits = {**POD, "status": {"phase": "Pending"}}
    row = pod_row(waits, Expectation(State.REFUSED, "otherwise"), {}, (), "GPU is used otherwise")
    assert (row.verdict, row.expected, row.message) == ("ok", "Refused", "GPU is used otherwise")
    assert pod_row(POD, RUNNING, {}, (), "GPU is used otherwise").message == ""


def test_a_row() -> None:
    claims = {
        ("demo", "mine"): allocated(claim("mine", request()), ("n", "gpu-0")),
        ("demo", "p-b-x"): allocated(claim("p-b-x", request()), ("n", "gpu-1")),
    }
    row = pod_row(
        POD, RUNNING, claims, [view("/dev/nvidia0", "/dev/nvidiactl", OWN="1", NVIDIA_VISIBLE_DEVICES="void")]
    )
    assert row.devices == ("n/gpu-0", "n/gpu-1")
    assert row.sees == ("main: /dev/nvidia0 + 1 control node, 2 mounts, NVIDIA_VISIBLE_DEVICES=void",)
    assert (row.verdict, row.node) == ("ok", "n")


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        ((), "main: no GPU, 2 mounts"),
        (("/dev/nvidia0", "/dev/nvidia3"), "main: /dev/nvidia{0,3}, 2 mounts"),
        (("/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1"), "main: /dev/nvidia0 /dev/nvidia-caps/nvidia-cap1, 2 mounts"),
    ],
)
def test_what_a_container_sees(paths: tuple[str, ...], text: str) -> None:
    assert describe_view(view(*paths)) == text


ROWS = [
    PodRow("demo/p", "n", "Running", "Running", True, False, ("n/gpu-0",), ("main: /dev/nvidia0",), ""),
    PodRow("demo/q", "-", "Pending", "Pending", True, False, (), (), "no [room]"),
    lost_row("demo", "r", RUNNING),
]
REPORT = """\
POD     NODE  PHASE    EXPECTED          DEVICES
demo/p  n     Running  Running   ok      gpu-0
    main: /dev/nvidia0
demo/q  -     Pending  Pending   ok      -
    waits: no [room]
demo/r  -     gone     Running   missed  -
    waits: the pod was deleted
"""


def test_plain_output_is_columns_without_colour(capsys: pytest.CaptureFixture[str]) -> None:
    output = PlainOutput()
    output.start()
    output.update(ROWS)
    output.update(ROWS)
    output.result(ROWS)
    output.stop()
    printed = capsys.readouterr().out
    assert REPORT in printed
    assert "\x1b" not in printed
    assert printed.count("demo/p: Running on n with gpu-0") == 1


def test_live_output_says_the_same() -> None:
    screen = io.StringIO()
    output = LiveOutput(Console(file=screen, force_terminal=True, width=60, color_system=None))
    output.start()
    output.step("one [step]")
    output.update(ROWS)
    output.result(ROWS)
    output.stop()
    shown = screen.getvalue()
    assert "one [step]" in shown
    for line in REPORT.splitlines():
        assert line in shown
