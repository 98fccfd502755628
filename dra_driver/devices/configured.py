"""From DriverConfiguration to the policy of devices, the same in controller and kubelet plugin. Pure."""

from __future__ import annotations

from api.driver_spec import DriverSpec
from api.mig_policy import GpuSelectorSettings, MigRuleSettings
from dra_driver.devices.policy import DevicePolicy, GpuSelector, MigPolicy, MigRule


def device_policy(spec: DriverSpec) -> DevicePolicy:
    """What ``spec`` says about devices.

    Feature gate DynamicMIG decides about GPUs that no rule gives a mode; a rule with a mode is more specific and wins.
    """
    rules = tuple(_rule(rule) for rule in spec.mig.rules)
    return DevicePolicy(
        additional_attributes=spec.policy.additional_attributes,
        mig=MigPolicy(
            rules,
            dynamic_by_default="DynamicMIG" in spec.enabled_gates(),
            packing=spec.mig.packing,
        ),
        driver=spec.driver_name,
    )


def _rule(rule: MigRuleSettings) -> MigRule:
    return MigRule(
        selector=_selector(rule.selector),
        mode=rule.mode,
        partial_compute_instances=rule.partial_compute_instances,
        adopt_foreign=rule.adopt_foreign,
        keep_mode=rule.keep_mode,
        layout=rule.layout,
    )


def _selector(selector: GpuSelectorSettings) -> GpuSelector:
    return GpuSelector(
        nodes=tuple(selector.nodes),
        products=tuple(selector.products),
        architectures=tuple(selector.architectures),
        uuids=tuple(selector.uuids),
        minors=tuple(selector.minors),
    )
