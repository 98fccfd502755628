"""Rules of a capacity's requestPolicy (KEP-5075): how shares of one device's capacity may be asked for.

Quantities are compared exactly. Fractions of a unit are refused, as the server does without the feature gate
DRAFractionalCapacityRange; a driver that keeps to whole numbers is right on every server.
"""

from __future__ import annotations

from dra_driver.quantity import Quantity
from dra_driver.simulation.validation import limits
from dra_driver.simulation.validation.cause import Cause, forbidden, invalid, required
from dra_driver.simulation.validation.reading import Fields, each, fields

_MAX_INT64 = Quantity.of(2**63 - 1)


def validate_capacity(capacity: Fields, path: str, *, shared: bool) -> list[Cause]:
    """``shared``: the device has allowMultipleAllocations; only then a policy may be set."""
    policy = capacity.get("requestPolicy")
    if policy is None:
        return []
    policy_path = f"{path}.requestPolicy"
    if not shared:
        return [forbidden(policy_path, "allowMultipleAllocations must be true")]
    value = _quantity(capacity, "value") or Quantity.of(0)
    values, valid_range = policy.get("validValues") or [], policy.get("validRange")
    if values and valid_range is not None:
        detail = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [forbidden(policy_path, detail)]
    default = _quantity(policy, "default")
    if values or valid_range is not None:
        if default is None:
            kind = "validValues" if values else "validRange"
            return [required(f"{policy_path}.default", f"required when {kind} is defined")]
        if values:
            return _values([Quantity.parse(item or 0) for item in values], default, value, f"{policy_path}.validValues")
        return _range(fields(policy, "validRange"), default, value, f"{policy_path}.validRange")
    return []


def _values(values: list[Quantity], default: Quantity, capacity: Quantity, path: str) -> list[Cause]:
    causes = [
        invalid(f"{path}[{index}]", str(values[index]), "values must be sorted in ascending order")
        for index in range(1, len(values))
        if values[index - 1] > values[index]
    ]

    def within_capacity(item_path: str, value: Quantity) -> list[Cause]:
        if value <= capacity:
            return []
        return [invalid(item_path, str(value), f"option is larger than capacity value: {capacity}")]

    causes += each(values, path, limits.POLICY_VALUES, within_capacity, key=str)
    if default not in values or len(values) > limits.POLICY_VALUES:  # a list too long is not searched
        causes.append(invalid(path, str(default), "default value is not valid according to the requestPolicy"))
    return causes


def _range(valid_range: Fields, default: Quantity, capacity: Quantity, path: str) -> list[Cause]:
    minimum, maximum = _quantity(valid_range, "min"), _quantity(valid_range, "max")
    if minimum is None:
        return [required(f"{path}.min", "required when validRange is defined")]
    causes: list[Cause] = []
    if minimum > capacity:
        causes.append(invalid(f"{path}.min", str(minimum), f"min is larger than capacity value: {capacity}"))
    if default < minimum:
        causes.append(invalid(f"{path}.default", str(default), f"default is less than min: {minimum}"))
    if maximum is not None:
        if minimum > maximum:
            causes.append(invalid(f"{path}.max", str(minimum), f"min is larger than max: {maximum}"))
        if maximum > capacity:
            causes.append(invalid(f"{path}.max", str(maximum), f"max is larger than capacity value: {capacity}"))
        if default > maximum:
            causes.append(invalid(f"{path}.default", str(default), f"default is more than max: {maximum}"))
    step = _quantity(valid_range, "step")
    if step is not None:
        causes += _step(step, default, minimum, maximum, capacity, path)
    return causes


def _step(
    step: Quantity, default: Quantity, minimum: Quantity, maximum: Quantity | None, capacity: Quantity, path: str
) -> list[Cause]:
    if step <= Quantity.of(0):
        return [invalid(f"{path}.step", str(step), "must be greater than zero")]
    causes: list[Cause] = []
    if minimum + step > capacity:
        detail = f"one step {minimum + step} is larger than capacity value: {capacity}"
        causes.append(invalid(f"{path}.step", str(step), detail))
    bounds = {"default": default, "min": minimum, "max": maximum, "step": step}
    unsafe = [
        invalid(f"{path}.{name}", str(bound), "must be a whole number from 0 to 9223372036854775807")
        for name, bound in bounds.items()
        if bound is not None and not (bound.is_whole() and Quantity.of(0) <= bound <= _MAX_INT64)
    ]
    if unsafe:
        return causes + unsafe
    causes += [
        invalid(f"{path}.step", str(bound), f"value is not a multiple of a given step ({step}) from ({minimum})")
        for bound in (default, maximum)
        if bound is not None and (bound - minimum).nanos % step.nanos
    ]
    return causes


def _quantity(holder: Fields, name: str) -> Quantity | None:
    value = holder.get(name)
    return None if value is None else Quantity.parse(value)
