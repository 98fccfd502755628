"""From DriverConfiguration to the policy of devices, the same in controller and kubelet plugin. Pure."""

from __future__ import annotations

from api.claim_config import SharingStrategy
from api.driver_spec import DriverSpec
from api.mig_policy import GpuSelectorSettings, MigRuleSettings
from api.sharing_policy import SharingRuleSettings
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import Replicas, SharingPolicy, SharingRule


def device_policy(spec: DriverSpec) -> DevicePolicy:
    """What ``spec`` says about devices.

    Feature gate DynamicMIG decides about GPUs that no rule gives a mode; a rule with a mode is more specific and wins.
    MPS needs feature gate MPSSupport; time-sliced replicas need none, since nothing is set on the GPU for them.
    """
    rules = tuple(_rule(rule) for rule in spec.mig.rules)
    gates = spec.enabled_gates()
    return DevicePolicy(
        additional_attributes=spec.policy.additional_attributes,
        mig=MigPolicy(
            rules,
            dynamic_by_default="DynamicMIG" in gates,
            packing=spec.mig.packing,
        ),
        sharing=SharingPolicy(tuple(_sharing_rule(rule) for rule in spec.sharing.rules)),
        sharing_by=frozenset(
            strategy for strategy in SharingStrategy if strategy is not SharingStrategy.MPS or "MPSSupport" in gates
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


def _sharing_rule(rule: SharingRuleSettings) -> SharingRule:
    one_per_request = rule.fail_requests_greater_than_one
    return SharingRule(
        Replicas(
            rule.strategy,
            rule.replicas,
            renamed=rule.rename_by_default,
            one_per_request=rule.strategy is SharingStrategy.MPS if one_per_request is None else one_per_request,
        ),
        selector=_selector(rule.selector),
        mig_profile=rule.mig_profile,
    )


def _selector(selector: GpuSelectorSettings) -> GpuSelector:
    return GpuSelector(
        nodes=tuple(selector.nodes),
        products=tuple(selector.products),
        architectures=tuple(selector.architectures),
        uuids=tuple(selector.uuids),
        minors=tuple(selector.minors),
    )
