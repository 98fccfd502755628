"""Random claims for parts of GPUs, in all the forms that people write and in some that they should not. Pure.

What is drawn is decided by the ``random.Random`` that is given. Nothing here knows what a claim should get: that is for
whoever compares two answers, kube-scheduler's and ours, or ours and a restatement of the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from dra_driver.devices.shares import COMPUTE, MEMORY
from dra_driver.kube.interface import Obj
from e2e.kit.expected import DRIVER
from e2e.kit.workloads import GPU_CLASS, MIG_CLASS, claim_spec, is_profile

FRACTION_CLASS = "fraction.gpu.nvidia.com"

_KI, _MI, _GI = 2**10, 2**20, 2**30
_MOST_REQUESTS = 4  # of all claims of a pod, so that every search for devices comes to an end


@dataclass(frozen=True, slots=True)
class Offer:
    """What requests are drawn around: bytes and percent. ``profiles``: of the MIG devices that can be had; none where
    there are none."""

    memory: int
    memory_step: int
    compute_step: int
    gpus: int
    profiles: Sequence[str] = ()


def random_pod(random: Random, offer: Offer) -> list[Obj]:
    """Specs of the claims of one pod."""
    left = random.choice([1, 1, 1, 2, 2, 3, _MOST_REQUESTS])
    specs: list[Obj] = []
    mig_devices = 2
    while left > 0:
        requests: list[Obj] = []
        for number in range(min(left, random.choice([1, 1, 2, 3]))):
            wants_mig = bool(offer.profiles) and mig_devices > 0 and random.random() < 0.3
            mig_devices -= wants_mig
            requests.append(_request(random, offer, f"r{number}", mig=wants_mig))
        left -= len(requests)
        specs.append(claim_spec(*requests))
    return specs


def memory_text(random: Random, offer: Offer) -> str:
    """A quantity of memory: mostly small, often off the step, sometimes just at the edges."""
    step, most = offer.memory_step, offer.memory
    part = random.randint(1, max(1, most // step // random.choice([1, 4, 8, 16]))) * step
    edges = [0, 1, step - 1, step, step + 1, most - step, most - 1, most, most + 1, most + step, 2 * most]
    (kind,) = random.choices(["whole", "off", "edge", "small", "far"], [40, 35, 10, 12, 3])
    if kind == "whole":
        return _spelled(random, part)
    if kind == "off":
        return random.choice(
            [
                _spelled(random, part + random.randint(1, step - 1)),
                f"{part / 10**9:.3f}G",
                f"{part / _GI:.2f}Gi",
                f"{random.randint(1, 9)}e9",
                f"{part // 10**6 + 1}M",
                f"{part // 1000 + 1}k",
                f"{part}500m",
            ]
        )
    if kind == "edge":
        return _spelled(random, random.choice(edges))
    if kind == "small":
        return random.choice(["0", "1", "100m", "1n", "1k", "1M", "100Ki", "1Mi", "255Mi", "1e6", ".5Gi", "0.1G"])
    return random.choice(["1Ti", "1e12", "1P", "1Ei", "9223372036854775807"])


def compute_text(random: Random, offer: Offer) -> str:
    """A quantity of percent."""
    step = offer.compute_step
    part = random.randint(0, 100 // step) * step
    (kind,) = random.choices(["whole", "off", "edge", "odd"], [50, 30, 10, 10])
    if kind == "whole":
        return str(min(part, random.randint(0, 100 // step) * step))
    if kind == "off":
        return random.choice([str(random.randint(1, 100)), f"{random.randint(1, 100_000)}m", f"{part}.5", f"{part}e0"])
    if kind == "edge":
        return str(random.choice([0, 1, step - 1, step, step + 1, 100 - 100 % step, 99, 100, 101]))
    return random.choice(["1n", "2e1", "25e0", "0.1k", "1k", "1Ki", "5E1", "1e-3"])


def _spelled(random: Random, number: int) -> str:
    """One of the ways to write a number of bytes exactly."""
    ways = [str(number), f"{number}000m", f"{number}e0"]
    ways += [
        f"{number // unit}{suffix}" for unit, suffix in ((_KI, "Ki"), (_MI, "Mi"), (_GI, "Gi")) if not number % unit
    ]
    ways += [f"{number // 10**power}e{power}" for power in (3, 6, 9) if not number % 10**power]
    return random.choice(ways)


def _request(random: Random, offer: Offer, name: str, *, mig: bool) -> Obj:
    if random.random() < 0.1:
        listed = [{"name": f"s{number}", **_body(random, offer, mig=mig)} for number in range(random.randint(1, 3))]
        return {"name": name, "firstAvailable": listed}
    return {"name": name, "exactly": _body(random, offer, mig=mig)}


def _body(random: Random, offer: Offer, *, mig: bool) -> Obj:
    body: Obj = {"deviceClassName": MIG_CLASS if mig else random.choice([GPU_CLASS, FRACTION_CLASS, FRACTION_CLASS])}
    if mig:
        body["selectors"] = [{"cel": {"expression": is_profile(random.choice(offer.profiles))}}]
    elif random.random() < 0.05:
        body["allocationMode"] = "All"
    elif random.random() < 0.2:
        # One more than there are GPUs, too.
        body["count"] = random.choice([1, 1, 2, random.randint(1, offer.gpus + 1)])
    asked = _amounts(random, offer, mig=mig)
    if asked or random.random() < 0.05:
        body["capacity"] = {"requests": asked}
    return body


def _amounts(random: Random, offer: Offer, *, mig: bool) -> dict[str, str]:
    asked: dict[str, str] = {}
    if random.random() < (0.2 if mig else 0.9):
        asked[MEMORY] = memory_text(random, offer)
    if not mig and random.random() < 0.6:
        asked[COMPUTE] = compute_text(random, offer)
    if random.random() < 0.04:
        asked["multiprocessors"] = random.choice(["0", "1", "1500m", "1000"])
    if random.random() < 0.02:
        asked[random.choice(["shares", f"{DRIVER}/{MEMORY}", "cores"])] = "1"
    return asked
