"""The numbers that the API server enforces for resource.k8s.io/v1 (staging/src/k8s.io/api/resource/v1/types.go, 1.37).

Kept apart from ``dra_driver.slices.limits``, which says what our slices respect: the server's side of a rule is only
a check of ours if it is written down independently. A test compares the two.
"""

from __future__ import annotations

from typing import Final

# ResourceSlice
POOL_NAME_BYTES: Final = 253  # PoolNameMaxLength
DRIVER_NAME_BYTES: Final = 63  # DriverNameMaxLength, DeviceMaxDomainLength
IDENTIFIER_BYTES: Final = 32  # DeviceMaxIDLength
DEVICES: Final = 128  # ResourceSliceMaxDevices
DEVICES_WITH_ADVANCED_FEATURES: Final = 64  # ResourceSliceMaxDevicesWithAdvancedFeatures: taints, counters, lists
COUNTER_SETS: Final = 8  # ResourceSliceMaxCounterSets
COUNTERS_PER_SET: Final = 32  # ResourceSliceMaxCountersPerCounterSet
COUNTER_CONSUMPTIONS: Final = 2  # ResourceSliceMaxDeviceCounterConsumptionsPerDevice
COUNTERS_PER_CONSUMPTION: Final = 32  # ResourceSliceMaxCountersPerDeviceCounterConsumption
ATTRIBUTES_AND_CAPACITIES: Final = 32  # ResourceSliceMaxAttributesAndCapacitiesPerDevice
ATTRIBUTE_VALUES: Final = 48  # ResourceSliceMaxAttributeValuesPerDevice
ATTRIBUTE_VALUE_BYTES: Final = 64  # DeviceAttributeMaxValueLength
TAINTS: Final = 16  # DeviceTaintsMaxLength
BINDING_CONDITIONS: Final = 4  # BindingConditionsMaxSize, BindingFailureConditionsMaxSize
POLICY_VALUES: Final = 10  # CapacityRequestPolicyDiscreteMaxOptions
COMPATIBILITY_GROUPS: Final = 2
# ResourceClaim and DeviceClass
REQUESTS: Final = 32  # DeviceRequestsMaxSize
CONSTRAINTS: Final = 32  # DeviceConstraintsMaxSize
CONFIGS: Final = 32  # DeviceConfigMaxSize; an allocation holds twice as many
SELECTORS: Final = 32  # DeviceSelectorsMaxSize
EXPRESSION_BYTES: Final = 10 * 1024  # CELSelectorExpressionMaxLength
ALTERNATIVES: Final = 8  # FirstAvailableDeviceRequestMaxSize
OPAQUE_BYTES: Final = 10 * 1024  # OpaqueParametersMaxLength, AllocatedDeviceStatusDataMaxLength
RESULTS: Final = 32  # AllocationResultsMaxSize
CONSUMERS: Final = 256  # ResourceClaimReservedForMaxSize
DEVICE_CONDITIONS: Final = 8  # AllocatedDeviceStatusMaxConditions
INTERFACE_ADDRESSES: Final = 16  # NetworkDeviceDataMaxIPs
INTERFACE_NAME_BYTES: Final = 256  # NetworkDeviceDataInterfaceNameMaxLength
HARDWARE_ADDRESS_BYTES: Final = 128  # NetworkDeviceDataHardwareAddressMaxLength
