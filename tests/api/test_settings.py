"""The table of settings covers the model, and both processes get their flags from it."""

from __future__ import annotations

import argparse
from typing import get_origin

import pytest

from api import shape
from api.driver_config import load
from api.driver_spec import DriverConfiguration, DriverSpec
from api.settings import (
    FILE_ONLY,
    IDENTITY,
    SETTINGS,
    Identity,
    IdentityValue,
    Process,
    Setting,
    add_arguments,
    config_file,
    identity,
)
from api.strict import DecodeError

# Flag and variable of NVIDIA's plugin (its cmd/gpu-kubelet-plugin), for every setting that it has, too.
NVIDIA = {
    "--node-name": "NODE_NAME",
    "--namespace": "NAMESPACE",
    "--cdi-root": "CDI_ROOT",
    "--nvidia-driver-root": "NVIDIA_DRIVER_ROOT",
    "--container-driver-root": "CONTAINER_DRIVER_ROOT",
    "--host-root": "HOST_ROOT",
    "--nvidia-cdi-hook-path": "NVIDIA_CDI_HOOK_PATH",
    "--kubelet-registrar-directory-path": "KUBELET_REGISTRAR_DIRECTORY_PATH",
    "--kubelet-plugins-directory-path": "KUBELET_PLUGINS_DIRECTORY_PATH",
    "--http-endpoint": "HTTP_ENDPOINT",
    "--metrics-path": "METRICS_PATH",
    "--kubeconfig": "KUBECONFIG",
    "--feature-gates": "FEATURE_GATES",
}


EVERYTHING: list[Setting | IdentityValue] = [*SETTINGS, *IDENTITY]


def parser(process: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=process)
    add_arguments(made, process)
    return made


def test_every_leaf_has_one_setting_and_every_setting_a_leaf() -> None:
    leaves = [".".join(location) for location, _ in shape.leaves(DriverSpec, ("spec",))]
    only_in_a_file = {leaf.path for leaf in FILE_ONLY}
    assert [setting.path for setting in SETTINGS] == [leaf for leaf in leaves if leaf not in only_in_a_file]
    assert only_in_a_file <= set(leaves)


def test_lists_and_what_belongs_to_layouts_are_for_the_file_alone() -> None:
    layouts = "spec.mig.layouts."
    assert all(get_origin(leaf.kind) is list or leaf.path.startswith(layouts) for leaf in FILE_ONLY)
    assert not any(get_origin(setting.kind) is list or setting.path.startswith(layouts) for setting in SETTINGS)


def test_flags_and_variables_are_unique() -> None:
    assert len({value.flag for value in EVERYTHING}) == len(EVERYTHING)
    assert len({value.env for value in EVERYTHING}) == len(EVERYTHING)


def test_names_are_nvidias_where_it_has_the_setting() -> None:
    ours = {value.flag: value.env for value in EVERYTHING}
    assert {flag: ours.get(flag) for flag in NVIDIA} == NVIDIA


def test_every_setting_has_a_description() -> None:
    assert all(leaf.description.endswith(".") for leaf in (*SETTINGS, *FILE_ONLY))
    assert shape.type_at(DriverConfiguration, ("spec", "nothing")) is None


@pytest.mark.parametrize("process", [Process.CONTROLLER, Process.PLUGIN, Process.SUPERVISOR])
def test_a_process_gets_its_flags_and_no_others(process: Process) -> None:
    flags = vars(parser(process).parse_args([]))
    assert set(flags) == {
        "config", *(value.dest for value in EVERYTHING if value.process.serves(process))
    }  # fmt: skip
    assert set(flags.values()) == {None}
    assert "cdi_root" not in vars(parser("controller").parse_args([]))
    assert "leader_elect" not in vars(parser("plugin").parse_args([]))
    assert "kubeconfig" not in vars(parser("supervisor").parse_args([]))
    assert "node_name" not in vars(parser("supervisor").parse_args([]))


def test_help_can_be_rendered_and_names_the_variable() -> None:
    text = parser("plugin").format_help()
    assert "[CDI_ROOT]" in text
    assert "--log-level debug|info|warning|error" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--leader-elect"], True),
        (["--leader-elect=true"], True),
        (["--leader-elect", "false"], False),
        ([], True),
    ],
)
def test_from_the_command_line_to_the_configuration(arguments: list[str], expected: bool) -> None:
    flags = vars(parser("controller").parse_args([*arguments, "--wipe-settle", "3s"]))
    spec = load(None, {}, flags).spec
    assert (spec.controller.leader_election.enabled, spec.controller.wipe.settle) == (expected, 3.0)


def test_identity() -> None:
    environ = {"NODE_NAME": "env-node", "NAMESPACE": "", "POD_UID": "uid"}
    flags = vars(parser("plugin").parse_args(["--node-name", "flag-node"]))
    assert identity("plugin", environ, flags) == Identity("flag-node", "default", "", "uid")
    assert identity("plugin", environ, {}).node_name == "env-node"
    assert identity("controller", {"POD_NAME": "p"}, {}) == Identity("", "default", "p", "")


def test_a_plugin_must_know_its_node() -> None:
    with pytest.raises(DecodeError, match=r"^--node-name: required, give the flag or set NODE_NAME$"):
        identity("plugin", {}, {})


def test_the_file_is_named_by_flag_or_variable() -> None:
    assert config_file({}, {}) is None
    assert str(config_file({"CONFIG_FILE": "/env"}, {})) == "/env"
    assert str(config_file({"CONFIG_FILE": "/env"}, {"config": "/flag"})) == "/flag"
