"""What the fake kubelet makes of health messages: words, times, and whom it tells."""

from __future__ import annotations

from api.kubelet import health_v1_pb2 as v1
from api.kubelet import health_v1alpha1_pb2 as v1alpha1
from dra_driver.simulation.kubelet.health import DeviceState, HealthCache
from dra_driver.simulation.kubelet.plugin import Device

GPU = Device("pool", "gpu-0", ("gpu",), ())
OTHER = Device("pool", "gpu-1", ("gpu",), ())


def message(device: str, health: v1.HealthStatus, seconds: int = 0, text: str = "") -> v1.DeviceHealth:
    return v1.DeviceHealth(
        device=v1.DeviceIdentifier(pool_name="pool", device_name=device),
        health=health,
        health_check_timeout_seconds=seconds,
        message=text,
    )


def test_words_silence_and_who_is_told() -> None:
    now = [0.0]
    cache = HealthCache(30, clock=lambda: now[0])
    told: list[str] = []
    cache.on_change(told.append)
    assert cache.state("d", GPU) == DeviceState("Unknown")

    cache.update("d", [message("gpu-0", v1.HEALTHY), message("gpu-1", v1.UNHEALTHY, text="it fell off the bus")])
    assert cache.state("d", GPU) == DeviceState("Healthy")
    assert cache.state("d", OTHER) == DeviceState("Unhealthy", "it fell off the bus")
    assert cache.state("another", GPU) == DeviceState("Unknown")
    assert told == ["d"]

    now[0] = 29.0
    cache.update(
        "d", [message("gpu-0", v1.HEALTHY, seconds=5), message("gpu-1", v1.UNHEALTHY, text="it fell off the bus")]
    )
    assert told == ["d"], "the same again"
    now[0] = 34.5
    assert cache.state("d", GPU) == DeviceState("Unknown"), "silent for longer than it said"
    assert cache.state("d", OTHER).health == "Unhealthy"

    cache.update("d", [message("gpu-0", v1.UNKNOWN)])
    assert cache.state("d", OTHER) == DeviceState("Unknown"), "each message is the whole list"
    cache.forget("d")
    cache.forget("d")
    assert told == ["d", "d", "d"]


def test_both_versions_are_understood() -> None:
    cache = HealthCache(30)
    device = v1alpha1.DeviceIdentifier(pool_name="pool", device_name="gpu-0")
    cache.update("d", [v1alpha1.DeviceHealth(device=device, health=v1alpha1.UNHEALTHY)])
    assert cache.state("d", GPU).health == "Unhealthy"
