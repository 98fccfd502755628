"""Loading the driver's configuration: precedence, files, and errors that name file, variable or flag."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from api.driver_config import DriverConfiguration, decode, load
from api.driver_spec import DriverSpec, LogFormat, LogLevel
from api.strict import DecodeError

HEAD = "apiVersion: gpu-dra.dev/v1alpha1\nkind: DriverConfiguration\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "driver.yaml"


def problems(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> list[str]:
    with pytest.raises(DecodeError) as caught:
        load(file, environ, flags)
    return [str(problem) for problem in caught.value.problems]


def test_defaults() -> None:
    spec = load(None, {}, {}).spec
    assert spec == DriverSpec()
    assert spec.driver_name == "gpu.nvidia.com"
    assert spec.kubelet.registrar_directory == Path("/var/lib/kubelet/plugins_registry")
    assert spec.kubelet.plugins_directory == Path("/var/lib/kubelet/plugins")
    assert (spec.cdi.root, spec.cdi.hook_path) == (Path("/var/run/cdi"), None)
    assert (spec.hardware.driver_root, spec.hardware.host_root) == (Path("/"), Path("/"))
    assert spec.hardware.container_driver_root == Path("/driver-root")
    assert (spec.hardware.simulated_state, spec.hardware.rescan_interval) == (None, 5.0)
    election = spec.controller.leader_election
    assert (election.enabled, election.lease_duration, election.renew_deadline, election.retry_period) == (
        True, 15.0, 10.0, 2.0,
    )  # fmt: skip
    assert (spec.observability.http_endpoint, spec.observability.metrics_path) == (None, "/metrics")
    assert (spec.observability.log_level, spec.observability.log_format) == (LogLevel.INFO, LogFormat.TEXT)
    assert (spec.kubernetes.kubeconfig, spec.kubernetes.request_timeout) == (None, 10.0)
    assert spec.policy.additional_attributes is False


# The layers that are given, and which of them is in force.
@pytest.mark.parametrize(
    ("in_file", "in_environment", "in_flag", "winner"),
    [
        (None, None, None, "/var/run/cdi"),
        ("/file", None, None, "/file"),
        ("/file", "/env", None, "/env"),
        ("/file", "/env", "/flag", "/flag"),
        ("/file", None, "/flag", "/flag"),
        (None, "/env", None, "/env"),
        (None, "/env", "/flag", "/flag"),
        (None, None, "/flag", "/flag"),
        ("/file", "", None, "/file"),
    ],
)
def test_a_later_layer_wins(
    file: Path, in_file: str | None, in_environment: str | None, in_flag: str | None, winner: str
) -> None:
    if in_file is not None:
        file.write_text(f"{HEAD}spec: {{cdi: {{root: {in_file}}}}}\n")
    environ = {} if in_environment is None else {"CDI_ROOT": in_environment}
    config = load(file if in_file is not None else None, environ, {"cdi_root": in_flag})
    assert config.spec.cdi.root == Path(winner)


def test_layers_do_not_disturb_each_other(file: Path) -> None:
    file.write_text(f"{HEAD}spec: {{cdi: {{root: /a}}, observability: {{logLevel: debug}}}}\n")
    spec = load(file, {"HTTP_ENDPOINT": ":8080", "LEADER_ELECT": "false"}, {"log_format": "json", "other": 5}).spec
    assert spec.cdi.root == Path("/a")
    assert spec.observability.log_level is LogLevel.DEBUG
    assert spec.observability.http_endpoint == ":8080"
    assert spec.observability.log_format is LogFormat.JSON
    assert spec.controller.leader_election.enabled is False
    assert spec.controller.leader_election.lease_duration == 15.0


def test_gates_are_single_settings(file: Path) -> None:
    file.write_text(f"{HEAD}spec: {{featureGates: {{MPSSupport: false, ComputeDomainCliques: false}}}}\n")
    environ = {"FEATURE_GATES": "ComputeDomainCliques=true, ContextualLogging=false"}
    spec = load(file, environ, {"feature_gates": "ContextualLogging=true"}).spec
    assert spec.feature_gates == {"MPSSupport": False, "ComputeDomainCliques": True, "ContextualLogging": True}
    assert spec.enabled_gates() == {
        "ComputeDomainCliques", "ContextualLogging", "CrashOnNVLinkFabricErrors", "DynamicMIG",
            "IMEXDaemonsWithDNSNames", "LoggingBetaOptions", "TimeSlicingSettings",
        }  # fmt: skip


def test_an_empty_flag_is_a_value_where_empty_text_has_a_meaning() -> None:
    spec = load(None, {"HTTP_ENDPOINT": ":1", "SIMULATED_STATE": "/s", "KUBECONFIG": "/k"}, {
        "http_endpoint": "", "simulated_state": "", "kubeconfig": "", "metrics_path": "",
    }).spec  # fmt: skip
    assert (spec.observability.http_endpoint, spec.hardware.simulated_state) == (None, None)
    assert (spec.kubernetes.kubeconfig, spec.observability.metrics_path) == (None, "")


def test_json_is_read_too(file: Path) -> None:
    file.write_text('{"apiVersion": "gpu-dra.dev/v1alpha1", "kind": "DriverConfiguration", "metadata": {"name": "x"}}')
    assert load(file, {}, {}).metadata == {"name": "x"}


def test_written_and_read_again() -> None:
    config = load(None, {"CDI_ROOT": "/cdi", "LEADER_ELECT_RETRY_PERIOD": "1500ms", "HTTP_ENDPOINT": "[::1]:80"}, {})
    wire = config.to_wire()
    assert wire["spec"]["controller"]["leaderElection"]["retryPeriod"] == "1s500ms"
    assert decode(wire) == config


FILES: list[tuple[str, list[str]]] = [
    ("spec: {cdi: {rooot: /x}}", ["spec.cdi.rooot: unknown field, did you mean root?"]),
    ("spec: {hookPath: /x}", ["spec.hookPath: unknown field, it belongs under cdi"]),
    ("spec: {kubelet: 5}", ["spec.kubelet: must be an object, not 5"]),
    ("spec: {cdi: {root: cdi}}", ['spec.cdi.root: must be an absolute path, not "cdi"']),
    ("spec: {cdi: {root: ''}}", ['spec.cdi.root: must be an absolute path, not ""']),
    (
        "spec: {hardware: {rescanInterval: 5}}",
        ['spec.hardware.rescanInterval: must be a duration, not 5, write it like "15s", "1m30s" or "250ms"'],
    ),
    (
        "spec: {hardware: {nvidiaSmiTimeout: 0s}}",
        ['spec.hardware.nvidiaSmiTimeout: must be longer than 0s, not "0s"'],
    ),
    (
        "spec: {controller: {leaderElection: {leaseDuration: 5s}}}",
        [
            (
                "spec.controller.leaderElection: must have leaseDuration > renewDeadline > retryPeriod > 0s, "
                "otherwise two controllers could hold the Lease at once"
            )
        ],
    ),
    (
        "spec: {driverName: GPU_x}",
        [
            'spec.driverName: must be a DNS name of at most 63 characters, not "GPU_x", such as "gpu.nvidia.com"',
        ],
    ),
    (
        "spec: {observability: {httpEndpoint: '8080', metricsPath: metrics}}",
        [
            (
                'spec.observability.httpEndpoint: must be an address with a port, not "8080", '
                'such as ":8080" or "127.0.0.1:8080"'
            ),
            'spec.observability.metricsPath: must be empty or a path that starts with /, not "metrics"',
        ],
    ),
    (
        "spec: {featureGates: {DynamicMig: true, MPSSupport: true, ContextualLogging: 1}}",
        ["spec.featureGates.ContextualLogging: must be true or false, not 1"],
    ),
    (
        "spec: {featureGates: {DynamicMig: true, DeviceMetadata: true, Zzz: false}}",
        [
            "spec.featureGates.DynamicMig: unknown feature gate, did you mean DynamicMIG?",
            (
                "spec.featureGates.DeviceMetadata: this version has no DeviceMetadata (device metadata for virtual "
                "machines), set it to false or remove it"
            ),
            (
                "spec.featureGates.Zzz: unknown feature gate, known gates: TimeSlicingSettings, MPSSupport, DynamicMIG, "
                "PassthroughSupport, NVMLDeviceHealthCheck, DeviceMetadata, DRAListTypeAttributes, ConsumableShares, "
                "FabricManagerPartitioning, ContextualLogging, LoggingAlphaOptions, LoggingBetaOptions, "
                "HostManagedIMEXDaemon, IMEXDaemonsWithDNSNames, ComputeDomainCliques, CrashOnNVLinkFabricErrors"
            ),
        ],
    ),
    ("spec: {cdi: {root: 2026-01-01}}", ["spec.cdi.root: must be a JSON value, not a Python date"]),
    ("metadata: 5", ["metadata: must be an object, not 5"]),
    ("sepc: {}", ["sepc: unknown field, did you mean spec?"]),
]


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_problems_of_a_file_name_it_and_the_path(file: Path, text: str, expected: list[str]) -> None:
    file.write_text(HEAD + text)
    assert problems(file, {}, {}) == [f"{file}: {line}" for line in expected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be an object, not null"),
        (b"[]", "must be an object, not a list"),
        (b"a: [", "is not YAML: while parsing a flow node"),
        (b"a: 1\na: 2", 'is not YAML: key "a" is given twice at line 2, column 1'),
        (b"a: 1\n---\nb: 1", "is not YAML: expected a single document"),
        (b"[" * 5000, "is not YAML: RecursionError"),
        (b"x: 2026-99-99", "is not YAML: ValueError: month must be in 1..12"),
        (b"\xff\xfe\xfa", "is not YAML: UnicodeDecodeError"),
        (b"&a [*a, *a]", "nested deeper than 32 levels, make it flatter$"),
        (b"? [1]\n: 2", "keys must be text|is not YAML"),
        (b"!!python/object:os.system {}", "is not YAML: could not determine a constructor"),
        (b"spec: {}", "apiVersion: required, set it to gpu-dra.dev/v1alpha1"),
        (b"apiVersion: v1\nkind: ConfigMap", 'apiVersion: must be gpu-dra.dev/v1alpha1, not "v1"'),
    ],
)
def test_a_file_that_is_no_configuration(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(DecodeError, match=message) as caught:
        load(file, {}, {})
    assert all(problem.path.startswith(str(file)) for problem in caught.value.problems)


def test_a_file_that_is_not_there(file: Path) -> None:
    assert problems(file, {}, {}) == [f"{file}: cannot be read: No such file or directory"]


@pytest.mark.parametrize("port", [65536, 70000, 99999, 100000])
def test_a_port_that_does_not_exist_is_a_wrong_configuration(port: int) -> None:
    """It passed, and the process ended with a trace."""
    for there_is in (0, 80, 59999, 60000, 65535):
        assert load(None, {}, {"http_endpoint": f":{there_is}"}).spec.observability.http_endpoint == f":{there_is}"
    assert problems(None, {}, {"http_endpoint": f":{port}"}) == [
        f'--http-endpoint: must be an address with a port, not ":{port}", such as ":8080" or "127.0.0.1:8080"',
    ]


def test_problems_of_flags_and_variables_name_them() -> None:
    environ = {"CDI_ROOT": "cdi", "FEATURE_GATES": "DynamicMig=false,DeviceMetadata=true", "LOG_LEVEL": "Debug"}
    flags = {"leader_elect": "maybe", "rescan_interval": "5", "http_endpoint": "localhost"}
    assert problems(None, environ, flags) == [
        '--leader-elect: must be true or false, not "maybe"',
        'CDI_ROOT: must be an absolute path, not "cdi"',
        '--rescan-interval: must be a duration, not "5", write it like "15s", "1m30s" or "250ms"',
        '--http-endpoint: must be an address with a port, not "localhost", such as ":8080" or "127.0.0.1:8080"',
        'LOG_LEVEL: must be one of debug, info, warning, error, not "Debug", did you mean debug?',
        "FEATURE_GATES.DynamicMig: unknown feature gate, did you mean DynamicMIG?",
        (
            "FEATURE_GATES.DeviceMetadata: this version has no DeviceMetadata (device metadata for virtual "
            "machines), set it to false or remove it"
        ),
    ]


@pytest.mark.parametrize("text", ["DynamicMIG", "DynamicMIG=yes", "=", "DynamicMIG=true=false"])
def test_gates_that_are_not_written_as_gates(text: str) -> None:
    assert problems(None, {}, {"feature_gates": text}) == [f'--feature-gates: "{text}" must be NAME=true or NAME=false']


def test_a_flag_hides_a_wrong_variable() -> None:
    assert load(None, {"CDI_ROOT": "cdi"}, {"cdi_root": "/cdi"}).spec.cdi.root == Path("/cdi")


def test_a_cluster_object_is_decoded_in_the_same_way() -> None:
    wire = {
        "apiVersion": "gpu-dra.dev/v1alpha1",
        "kind": "DriverConfiguration",
        "metadata": {"name": "default", "uid": "u"},
    }
    assert decode(wire) == DriverConfiguration(metadata={"name": "default", "uid": "u"})
    with pytest.raises(DecodeError, match=r"^x\.spec\.policy: must be an object, not true$"):
        decode({**wire, "spec": {"policy": True}}, path="x")
