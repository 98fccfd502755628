"""How much fits into a ResourceSlice, by which ``cutting`` cuts. What fits into one device, ``devices`` knows.

Sources: staging/src/k8s.io/api/resource/v1/types.go (1.35 and later), staging/src/k8s.io/api/resource/v1/types.go at
1.34 for the one-slice form, apiserver pkg/storage/names for generated names.
"""

from __future__ import annotations

from typing import Final

MAX_DEVICES: Final = 128
"""ResourceSliceMaxDevices."""

MAX_DEVICES_WITH_TAINTS_OR_COUNTERS: Final = 64
"""ResourceSliceMaxDevicesWithAdvancedFeatures: when any device of the slice has taints, counters or list attributes."""

MAX_COUNTER_SETS: Final = 8
"""ResourceSliceMaxCounterSets (1.35 and later)."""

MAX_COUNTERS_PER_SET: Final = 32
"""ResourceSliceMaxCountersPerCounterSet; at 1.34 the sum over the sets of a slice."""

MAX_CONSUMED_COUNTERS_IN_ONE_SLICE_FORM: Final = 1024
"""ResourceSliceMaxDeviceCountersPerSlice (1.34): counters consumed by all devices of a slice."""

MAX_GENERATE_NAME_BYTES: Final = 248
"""253 bytes of a DNS subdomain without the 5 that the server adds. Most servers cut at 58 bytes themselves."""
