"""NodeInventory (gpu-dra.dev/v1alpha1): what one node has and whether its plugin is there to serve it.

Cluster-scoped, named after the node, owned by the Node. ``status`` is the plugin's, ``spec`` the controller's. Facts
that all GPUs of a product share (MIG tables above all) are stored once per product, so that an 8-GPU node stays under
10 KB and 5,000 of them are cheap to list. ``dra_driver.hardware.inventory`` converts a Machine to a status and back.

Challenge and answer: the kubelet deletes a node's ResourceSlices to keep pods off a node whose plugin is gone. Before
the controller creates slices that are not there, it writes ``spec.challenge``; the plugin copies it to
``status.answer`` only while a kubelet connection is alive.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, computed_field

from api.base import LenientModel
from api.claim_config import SharingStrategy

API_VERSION: Final = "gpu-dra.dev/v1alpha1"
KIND: Final = "NodeInventory"

MIG_LAYOUT_APPLIED: Final = "MigLayoutApplied"
"""Type of the condition that says whether GPUs have the MIG layouts that rules ask for; absent where none does."""

SHARING_CONFIGURED: Final = "SharingConfigured"
"""Type of the condition that says what was made of the configuration of sharing; the controller's. Absent where there
never was any."""

MigModeState = Literal["Enabled", "Disabled", "EnabledPending", "DisabledPending"]
"""MIG mode of a GPU, with what it will be after the next reset where that differs."""


class PlacementRange(LenientModel):
    """Placements of one profile: they differ only in their start."""

    size: int
    starts: list[int]


class MigProfileEntry(LenientModel):
    """One GPU instance profile, as NVML reports it. Engines: copy, decoder, encoder, JPEG, OFA counts."""

    name: str
    id: int
    enum_index: int
    slices: int
    instances: int
    memory_mib: int = Field(alias="memoryMiB")
    multiprocessors: int
    engines: list[int] = Field(min_length=5, max_length=5)
    p2p: bool | None = Field(default=None, alias="p2p")
    placements: PlacementRange


class Product(LenientModel):
    """What all GPUs of one product on this node share."""

    name: str
    brand: str
    architecture: str
    cuda_compute_capability: str
    memory_bytes: int | None = None
    addressing_mode: str | None = None
    pci_device_id: str | None = Field(default=None, alias="pciDeviceID", pattern="^0x[0-9a-f]{8}$")
    mig_profiles: list[MigProfileEntry] | None = None


class ComputeInstanceEntry(LenientModel):
    """A MIG device: compute slices ``start`` to ``start + slices`` of its GPU instance."""

    id: int
    uuid: str
    slices: int
    start: int = 0


class MigInstanceEntry(LenientModel):
    """A GPU instance. ``foreign``: this driver did not make it and leaves it alone."""

    id: int
    profile: int
    profile_name: str
    start: int
    size: int
    compute: list[ComputeInstanceEntry] = Field(default_factory=list)
    foreign: bool | None = None


class RefusedPlacementEntry(LenientModel):
    """NVML refused a GPU instance here although nothing is listed there; ``message`` has both views."""

    profile: int
    start: int
    size: int
    message: str = Field(max_length=1024)


class UnhealthyMpsEntry(LenientModel):
    """A device, by its published name, whose MPS daemon is dead or stuck; ``message`` says why."""

    device: str
    message: str = Field(max_length=1024)


class ReserveEntry(LenientModel):
    """Memory of a device, by its published name, that no share of it can have; measured while it was idle."""

    device: str
    bytes: int = Field(ge=0)


class GpuEntry(LenientModel):
    """One GPU; ``product`` is an index into ``machine.products``. ``mig`` is None where the product has none."""

    index: int
    minor: int
    uuid: str
    product: int
    pci_bus_id: str = Field(alias="pciBusID")
    pcie_root: str | None = None
    numa_node: int | None = None
    mig: MigModeState | None = None
    mig_instances: list[MigInstanceEntry] | None = None
    mig_refused: list[RefusedPlacementEntry] | None = None
    mps_unhealthy: list[UnhealthyMpsEntry] | None = None
    reserves: list[ReserveEntry] | None = None
    unfenced: list[str] | None = Field(
        default=None, description="Devices, by published name, on which a share's fence has gone."
    )


class MachineStatus(LenientModel):
    """``gpuCount`` is written for people only (printer columns cannot count) and passed over when read. ``fences``:
    what the node can fence fractions with (api.fractions.SharingBackend), strongest first."""

    driver_version: str
    cuda_driver_version: int
    products: list[Product] = Field(default_factory=list)
    gpus: list[GpuEntry] = Field(default_factory=list)
    fences: list[str] | None = None

    @computed_field(description="Number of GPUs, for printer columns.")  # type: ignore[prop-decorator]
    @property
    def gpu_count(self) -> int:
        return len(self.gpus)


class Registration(LenientModel):
    """Who serves this node now. ``registrations`` counts kubelet notifications seen by this plugin instance."""

    plugin_instance: str = ""
    plugin_version: str = ""
    registered: bool = False
    registrations: int = 0


class Condition(LenientModel):
    """metav1.Condition, but for observedGeneration: conditions here are about the node, not about ``spec``."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str = ""


class SharedResource(LenientModel):
    """Devices of this node that are offered as several shares. ``resource``: ``nvidia.com/gpu`` or
    ``nvidia.com/mig-<profile>``, also where they are renamed. ``onePerRequest``: failRequestsGreaterThanOne."""

    resource: str
    strategy: SharingStrategy
    replicas: int
    renamed: bool = False
    one_per_request: bool = False


class NodeSharing(LenientModel):
    """What of the device plugin's configuration is in force on this node; it stays while a new one is broken.
    ``source``: ConfigMap and key. Rules of DriverConfiguration, which come first, are not in it."""

    source: str
    resources: list[SharedResource] = Field(default_factory=list)


class NodeInventorySpec(LenientModel):
    challenge: str | None = Field(default=None, max_length=64)
    sharing: NodeSharing | None = None


class NodeInventoryStatus(LenientModel):
    """``machine`` is absent while the hardware cannot be read, or containers cannot be given it; condition
    ``HardwareReady`` says why."""

    machine: MachineStatus | None = None
    registration: Registration = Registration()
    answer: str | None = Field(default=None, max_length=64)
    conditions: list[Condition] = Field(default_factory=list)


class NodeInventory(LenientModel):
    """The whole object. ``metadata`` is kept as it is."""

    api_version: Literal["gpu-dra.dev/v1alpha1"] = API_VERSION
    kind: Literal["NodeInventory"] = KIND
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: NodeInventorySpec = NodeInventorySpec()
    status: NodeInventoryStatus = NodeInventoryStatus()
