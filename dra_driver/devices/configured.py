"""From DriverConfiguration to the policy of devices, the same in controller and kubelet plugin. Pure."""

from __future__ import annotations

from api.claim_config import SharingStrategy
from api.driver_spec import DriverSpec
from api.memory import in_bytes
from api.mig_policy import GpuSelectorSettings, MigRuleSettings
from api.sharing_policy import SharingRuleSettings
from dra_driver.devices.policy import DevicePolicy, MigPolicy, MigRule
from dra_driver.devices.selector import GpuSelector
from dra_driver.devices.sharing import Counted, Fractions, Replicas, Sharing, SharingPolicy, SharingRule


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
        sharing=SharingPolicy(tuple(_sharing_rule(rule) for rule in spec.sharing.rules), _otherwise(spec)),
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
    return SharingRule(_sharing(rule), selector=_selector(rule.selector), mig_profile=rule.mig_profile)


def _sharing(rule: SharingRuleSettings) -> Sharing:
    if rule.fractions is not None:
        return Fractions(in_bytes(rule.fractions.memory_step), rule.fractions.compute_step)
    one_per_request = rule.fail_requests_greater_than_one
    return Replicas(
        rule.strategy,
        rule.replicas or 1,  # the model lets none be missing here
        renamed=rule.rename_by_default,
        one_per_request=rule.strategy is SharingStrategy.MPS if one_per_request is None else one_per_request,
    )


def _otherwise(spec: DriverSpec) -> Sharing | None:
    """NVIDIA's switch; without its feature gate it does nothing there either."""
    option = spec.sharing.consumable_shares
    if not option or "ConsumableShares" not in spec.enabled_gates():
        return None
    if option in ("unlimited", "memory"):
        return Counted(memory=option == "memory")
    return Replicas(SharingStrategy.TIME_SLICING, int(option))


def _selector(selector: GpuSelectorSettings) -> GpuSelector:
    return GpuSelector(
        nodes=tuple(selector.nodes),
        products=tuple(selector.products),
        architectures=tuple(selector.architectures),
        uuids=tuple(selector.uuids),
        minors=tuple(selector.minors),
    )
