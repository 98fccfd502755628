"""The shapes of the kinds themselves: ResourceSlice, ResourceClaim, ResourceClaimTemplate, DeviceClass.

Field names are those of staging/src/k8s.io/api/resource/v1/types.go at Kubernetes 1.37.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dra_driver.simulation.validation.shapes import ListOf, MapOf, Scalar, Shape, Struct

_STRING, _INTEGER, _BOOLEAN = Scalar.STRING, Scalar.INTEGER, Scalar.BOOLEAN
_QUANTITY, _TIME, _JSON = Scalar.QUANTITY, Scalar.TIME, Scalar.JSON
_STRINGS: Final = ListOf(_STRING)

OWNER_REFERENCE: Final = Struct(
    {
        "apiVersion": _STRING,
        "kind": _STRING,
        "name": _STRING,
        "uid": _STRING,
        "controller": _BOOLEAN,
        "blockOwnerDeletion": _BOOLEAN,
    }
)
METADATA: Final = Struct(
    {
        "name": _STRING,
        "generateName": _STRING,
        "namespace": _STRING,
        "selfLink": _STRING,
        "uid": _STRING,
        "resourceVersion": _STRING,
        "generation": _INTEGER,
        "creationTimestamp": _TIME,
        "deletionTimestamp": _TIME,
        "deletionGracePeriodSeconds": _INTEGER,
        "labels": MapOf(_STRING),
        "annotations": MapOf(_STRING),
        "ownerReferences": ListOf(OWNER_REFERENCE),
        "finalizers": _STRINGS,
        "managedFields": _JSON,
    }
)
_NODE_REQUIREMENT: Final = Struct({"key": _STRING, "operator": _STRING, "values": _STRINGS})
NODE_SELECTOR: Final = Struct(
    {
        "nodeSelectorTerms": ListOf(
            Struct({"matchExpressions": ListOf(_NODE_REQUIREMENT), "matchFields": ListOf(_NODE_REQUIREMENT)})
        )
    }
)
_TOLERATION: Final = Struct(
    {
        "key": _STRING,
        "operator": _STRING,
        "value": _STRING,
        "effect": _STRING,
        "tolerationSeconds": _INTEGER,
    }
)
_OPAQUE: Final = Struct({"driver": _STRING, "parameters": _JSON})
_SELECTORS: Final = ListOf(Struct({"cel": Struct({"expression": _STRING})}))

# ResourceSlice
_ATTRIBUTE: Final = Struct(
    {
        "int": _INTEGER,
        "bool": _BOOLEAN,
        "string": _STRING,
        "version": _STRING,
        "ints": ListOf(_INTEGER),
        "bools": ListOf(_BOOLEAN),
        "strings": _STRINGS,
        "versions": _STRINGS,
    }
)
_CAPACITY: Final = Struct(
    {
        "value": _QUANTITY,
        "requestPolicy": Struct(
            {
                "default": _QUANTITY,
                "validValues": ListOf(_QUANTITY),
                "validRange": Struct({"min": _QUANTITY, "max": _QUANTITY, "step": _QUANTITY}),
            }
        ),
    }
)
_COUNTERS: Final = MapOf(Struct({"value": _QUANTITY}))
_NODE_ALLOCATABLE: Final = MapOf(
    Struct(
        {
            "mapping": Struct({"capacityKey": _STRING, "capacityMultiplier": _QUANTITY, "deviceMultiplier": _QUANTITY}),
            "overhead": Struct({"perPod": _QUANTITY, "perContainer": _QUANTITY}),
        }
    )
)
_DEVICE: Final = Struct(
    {
        "name": _STRING,
        "attributes": MapOf(_ATTRIBUTE),
        "capacity": MapOf(_CAPACITY),
        "consumesCounters": ListOf(
            Struct({"counterSet": _STRING, "counters": _COUNTERS, "compatibilityGroups": _STRINGS})
        ),
        "nodeName": _STRING,
        "nodeSelector": NODE_SELECTOR,
        "allNodes": _BOOLEAN,
        "taints": ListOf(Struct({"key": _STRING, "value": _STRING, "effect": _STRING, "timeAdded": _TIME})),
        "bindsToNode": _BOOLEAN,
        "bindingConditions": _STRINGS,
        "bindingFailureConditions": _STRINGS,
        "allowMultipleAllocations": _BOOLEAN,
        "nodeAllocatableResources": _NODE_ALLOCATABLE,
    }
)
_SLICE_SPEC: Final = Struct(
    {
        "driver": _STRING,
        "pool": Struct({"name": _STRING, "generation": _INTEGER, "resourceSliceCount": _INTEGER}),
        "nodeName": _STRING,
        "nodeSelector": NODE_SELECTOR,
        "allNodes": _BOOLEAN,
        "perDeviceNodeSelection": _BOOLEAN,
        "devices": ListOf(_DEVICE),
        "sharedCounters": ListOf(Struct({"name": _STRING, "counters": _COUNTERS})),
        "partitionTypeAttribute": _STRING,
        "skipNodeOperations": _STRINGS,
    }
)

# ResourceClaim
_SUB_REQUEST_FIELDS: Final[Mapping[str, Shape]] = {
    "deviceClassName": _STRING,
    "selectors": _SELECTORS,
    "allocationMode": _STRING,
    "count": _INTEGER,
    "tolerations": ListOf(_TOLERATION),
    "capacity": Struct({"requests": MapOf(_QUANTITY)}),
    "derivedAttributes": ListOf(Struct({"name": _STRING, "expression": _STRING})),
}
CLAIM_SPEC: Final = Struct(
    {
        "devices": Struct(
            {
                "requests": ListOf(
                    Struct(
                        {
                            "name": _STRING,
                            "exactly": Struct({**_SUB_REQUEST_FIELDS, "adminAccess": _BOOLEAN}),
                            "firstAvailable": ListOf(Struct({**_SUB_REQUEST_FIELDS, "name": _STRING})),
                        }
                    )
                ),
                "constraints": ListOf(
                    Struct({"requests": _STRINGS, "matchAttribute": _STRING, "distinctAttribute": _STRING})
                ),
                "config": ListOf(Struct({"requests": _STRINGS, "opaque": _OPAQUE})),
            }
        )
    }
)
ALLOCATION: Final = Struct(
    {
        "devices": Struct(
            {
                "results": ListOf(
                    Struct(
                        {
                            "request": _STRING,
                            "driver": _STRING,
                            "pool": _STRING,
                            "device": _STRING,
                            "adminAccess": _BOOLEAN,
                            "tolerations": ListOf(_TOLERATION),
                            "bindingConditions": _STRINGS,
                            "bindingFailureConditions": _STRINGS,
                            "shareID": _STRING,
                            "consumedCapacity": MapOf(_QUANTITY),
                            "skipNodeOperations": _STRINGS,
                        }
                    )
                ),
                "config": ListOf(Struct({"source": _STRING, "requests": _STRINGS, "opaque": _OPAQUE})),
            }
        ),
        "nodeSelector": NODE_SELECTOR,
        "allocationTimestamp": _TIME,
    }
)
_CONDITION: Final = Struct(
    {
        "type": _STRING,
        "status": _STRING,
        "observedGeneration": _INTEGER,
        "lastTransitionTime": _TIME,
        "reason": _STRING,
        "message": _STRING,
    }
)
_CLAIM_STATUS: Final = Struct(
    {
        "allocation": ALLOCATION,
        "reservedFor": ListOf(Struct({"apiGroup": _STRING, "resource": _STRING, "name": _STRING, "uid": _STRING})),
        "devices": ListOf(
            Struct(
                {
                    "driver": _STRING,
                    "pool": _STRING,
                    "device": _STRING,
                    "shareID": _STRING,
                    "conditions": ListOf(_CONDITION),
                    "data": _JSON,
                    "networkData": Struct({"interfaceName": _STRING, "ips": _STRINGS, "hardwareAddress": _STRING}),
                }
            )
        ),
    }
)
TEMPLATE_SPEC: Final = Struct({"metadata": METADATA, "spec": CLAIM_SPEC})
_CLASS_SPEC: Final = Struct(
    {"selectors": _SELECTORS, "config": ListOf(Struct({"opaque": _OPAQUE})), "extendedResourceName": _STRING}
)


def _kind(**fields: Struct) -> Struct:
    return Struct({"apiVersion": _STRING, "kind": _STRING, "metadata": METADATA, **fields})


RESOURCE_SLICE: Final = _kind(spec=_SLICE_SPEC)
RESOURCE_CLAIM: Final = _kind(spec=CLAIM_SPEC, status=_CLAIM_STATUS)
RESOURCE_CLAIM_TEMPLATE: Final = _kind(spec=TEMPLATE_SPEC)
DEVICE_CLASS: Final = _kind(spec=_CLASS_SPEC)
