"""matchAttribute and distinctAttribute, kept up to date while the search adds and removes devices.

A device without the attribute is excluded by both kinds. Values compare with their type; a list attribute matches when
lists intersect and is distinct when they do not (KEP-5491).
"""

from __future__ import annotations

from dra_driver.allocator.model import Claim, Constraint, ConstraintKind, Device

_Values = frozenset[tuple[str, object]]


class ClaimConstraints:
    """The constraints of one claim over the devices chosen so far; calls of add and remove pair like brackets."""

    def __init__(self, claim: Claim) -> None:
        self._states = tuple(_State(constraint) for constraint in claim.constraints)

    def add(self, request_name: str, device: Device) -> bool:
        """False, and nothing is changed, when the device breaks a constraint."""
        for position, state in enumerate(self._states):
            if not state.add(request_name, device):
                for earlier in reversed(self._states[:position]):
                    earlier.remove(request_name)
                return False
        return True

    def remove(self, request_name: str) -> None:
        """Take back the device added last."""
        for state in self._states:
            state.remove(request_name)


class _State:
    """A stack: for a match what all devices share, for a distinct everything seen."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._stack: list[_Values] = []

    def add(self, request_name: str, device: Device) -> bool:
        if not self._constraint.applies_to(request_name):
            return True
        values = _values(device, self._constraint.attribute)
        if not values:
            return False
        before = self._stack[-1] if self._stack else None
        if self._constraint.kind is ConstraintKind.MATCH:
            after = values if before is None else before & values
            fits = bool(after)
        else:
            after = values if before is None else before | values
            fits = before is None or not before & values
        if fits:
            self._stack.append(after)
        return fits

    def remove(self, request_name: str) -> None:
        if self._constraint.applies_to(request_name):
            self._stack.pop()


def _values(device: Device, attribute: str) -> _Values:
    value = device.attribute(attribute)
    if value is None:
        return frozenset()
    entries = value if isinstance(value, tuple) else (value,)
    return frozenset((type(entry).__name__, entry) for entry in entries)
