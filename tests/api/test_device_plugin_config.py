"""The device plugin's configuration file: what it accepts, and how what is wrong is told."""

from __future__ import annotations

import pytest

from api.claim_config import SharingStrategy
from api.device_plugin_config import DevicePluginConfig, ReplicatedResource, parse
from api.strict import DecodeError

# docs.nvidia.com, GPU Operator, "Time-Slicing GPUs in Kubernetes".
TIME_SLICING = """
version: v1
flags:
  migStrategy: none
sharing:
  timeSlicing:
    renameByDefault: false
    failRequestsGreaterThanOne: false
    resources:
    - name: nvidia.com/gpu
      replicas: 4
"""
EVERY_FIELD = """
version: v1
flags:
  migStrategy: mixed
  failOnInitError: true
  mpsRoot: /run/nvidia/mps
  nvidiaDriverRoot: /
  nvidiaDevRoot: /
  gdrcopyEnabled: false
  gdsEnabled: false
  mofedEnabled: false
  useNodeFeatureAPI: false
  deviceDiscoveryStrategy: auto
  plugin:
    passDeviceSpecs: false
    deviceListStrategy: [envvar, cdi-cri]
    deviceIDStrategy: uuid
    cdiAnnotationPrefix: cdi.k8s.io/
    nvidiaCTKPath: /usr/bin/nvidia-ctk
    containerDriverRoot: /driver-root
  gfd:
    oneshot: false
    noTimestamp: false
    sleepInterval: 60s
    outputFile: /etc/kubernetes/node-feature-discovery/features.d/gfd
    machineTypeFile: /sys/class/dmi/id/product_name
resources:
  gpus: [{pattern: "*", name: nvidia.com/gpu}]
  mig: [{pattern: "1g.10gb", name: nvidia.com/mig-small}]
sharing:
  timeSlicing:
    resources: [{name: nvidia.com/gpu, rename: nvidia.com/gpu.shared, devices: all, replicas: 2}]
  mps:
    renameByDefault: true
    resources:
    - {name: gpu, devices: 2, replicas: 48}
    - name: nvidia.com/mig-1g.10gb.me
      devices: [0, "1", "0:1", GPU-b1028956-cfa2-0990-bf4a-5da9abb51763, MIG-b1028956-cfa2-0990-bf4a-5da9abb51763]
      replicas: 3
imex:
  channelIDs: [0]
  required: false
"""


def wrong(text: str) -> str:
    with pytest.raises(DecodeError) as caught:
        parse(text)
    return str(caught.value)


def sharing(block: str, kind: str = "timeSlicing") -> str:
    return f"sharing: {{{kind}: {block}}}"


def resource(text: str) -> str:
    return sharing(f"{{resources: [{{{text}}}]}}")


def test_nvidias_own_example() -> None:
    active = parse(TIME_SLICING).sharing
    assert active is not None
    assert active.active is not None
    strategy, replicated = active.active
    assert strategy is SharingStrategy.TIME_SLICING
    assert replicated.resources == [ReplicatedResource(name="nvidia.com/gpu", replicas=4)]
    assert replicated.fail_requests_greater_than_one is False


def test_every_field_is_known_and_mps_goes_before_time_slicing() -> None:
    config = parse(EVERY_FIELD)
    assert config.sharing is not None
    assert config.sharing.active is not None
    strategy, replicated = config.sharing.active
    assert strategy is SharingStrategy.MPS
    assert [each.name for each in replicated.resources] == ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb.me"]
    assert replicated.fail_requests_greater_than_one is None


@pytest.mark.parametrize("text", ["", "# nothing", "version: v1", 'version: ""', "{}", "sharing: {}"])
def test_a_configuration_may_ask_for_nothing(text: str) -> None:
    config = parse(text)
    assert config.version == "v1"
    assert config.sharing is None or config.sharing.active is None


def test_json_is_read_too() -> None:
    assert parse('{"version": "v1", "sharing": {}}').model_dump(exclude_none=True) == {"version": "v1", "sharing": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: v2", 'version: must be v1, not "v2"'),
        ("sharin: {}", "sharin: unknown field, did you mean sharing?"),
        ("flags: {migStrategi: none}", "flags.migStrategi: unknown field, did you mean migStrategy?"),
        ("flags: {plugin: {device: 1}}", "flags.plugin.device: unknown field"),
        (sharing("{}"), "sharing.timeSlicing.resources: required"),
        (sharing("{resources: []}"), "sharing.timeSlicing.resources: must have at least one entry"),
        (sharing("{resources: [{name: nvidia.com/gpu, replicas: 2}], renameByDefalt: true}"), "did you mean rename"),
        (
            sharing("{resources: [{name: nvidia.com/gpu, replicas: 2}], renameByDefault: 1}"),
            "renameByDefault: must be true",
        ),
        (resource("replicas: 2"), "sharing.timeSlicing.resources[0].name: required"),
        (resource("name: nvidia.com/gpu"), "sharing.timeSlicing.resources[0].replicas: required"),
        (resource("name: nvidia.com/gpu, replicas: 1"), "resources[0].replicas: must be at least 2, not 1"),
        (resource("name: nvidia.com/gpu, replicas: 9999999"), "resources[0].replicas: must be at most 1024"),
        (resource('name: nvidia.com/gpu, replicas: "4"'), 'resources[0].replicas: must be a whole number, not "4"'),
        (resource("name: nvidia.com/gpu, replicas: true"), "resources[0].replicas: must be a whole number, not true"),
        (resource("name: amd.com/gpu, replicas: 2"), "resources[0].name: must be a resource of nvidia.com"),
        (resource("name: nvidia.com/GPU, replicas: 2"), "resources[0].name: must be a resource of nvidia.com"),
        (resource(f"name: {'a' * 60}, replicas: 2"), "of at most 63 characters"),
        (resource("name: gpu, replicas: 2, devices: some"), "devices: must be all, a positive number, or a list"),
        (resource("name: gpu, replicas: 2, devices: 0"), "devices: must be all, a positive number, or a list"),
        (resource("name: gpu, replicas: 2, devices: [GPU-1]"), "devices: must be all, a positive number, or a list"),
        (
            sharing("{resources: [{name: gpu, replicas: 2}, {name: nvidia.com/gpu, replicas: 4}]}"),
            "sharing.timeSlicing.resources[1].name: nvidia.com/gpu is given twice, keep one",
        ),
        ("a: [", "is not YAML"),
        ("version: v1\nversion: v1", 'key "version" is given twice'),
        ("- v1", "must be an object"),
        ("when: 2026-99-99", "is not YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(text: str, message: str) -> None:
    assert message in wrong(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            sharing("{resources: [{name: gpu, replicas: 2}, {name: gpu, replicas: 4}, {name: gpu, replicas: 3}]}"),
            "sharing.timeSlicing.resources[1].name: nvidia.com/gpu is given twice, keep one",
        ),
        (
            resource("name: gpu, replica: 2"),
            "sharing.timeSlicing.resources[0].replica: unknown field, did you mean replicas?",
        ),
        ("version: v1\nversion: v1", 'is not YAML: key "version" is given twice at line 2, column 1: version: v1 ^'),
    ],
)
def test_one_slip_is_told_once(text: str, message: str) -> None:
    assert wrong(text) == message


def test_every_problem_is_told_at_once() -> None:
    told = wrong("flag: {}\nsharing: {mps: {resources: [{name: gpu, replicas: 0}]}}")
    assert "flag: unknown field" in told
    assert "sharing.mps.resources[0].replicas: must be at least 2" in told


def test_names_are_known_by_their_wire_form_only() -> None:
    assert "time_slicing: unknown field" in wrong("sharing: {time_slicing: {}}")
    assert DevicePluginConfig() == parse("version: v1")
