"""Generated nodes whose devices are partly given in shares, and claims that ask for some of their capacity.

Everything is as a server would store it: defaults are filled in, policies keep the rules of the API.
"""

from __future__ import annotations

from hypothesis import strategies as st

from dra_driver.allocator.model import Obj
from tests.allocator.builders import DRIVER, claim, device_class, resource_slice

NODE = "n"
CLASSES = [device_class(DRIVER, f"device.driver == '{DRIVER}'")]
SHAREABLE = "device.allowMultipleAllocations"
SELECTORS = (
    SHAREABLE,
    f"!{SHAREABLE}",
    f"device.attributes['{DRIVER}'].model == 'a'",
)
AMOUNTS = (*map(str, range(10)), "1500m", "9223372036854775807")  # the largest goes wrong where it is rounded up


@st.composite
def policies(draw: st.DrawFn, most: int) -> Obj | None:
    """A policy for a capacity of ``most`` whole units."""
    kind = draw(st.sampled_from(["none", "default", "values", "range", "steps"]))
    if kind == "none":
        return None
    if kind == "default":
        return {"default": str(draw(st.integers(0, most)))}
    if kind == "values":
        values = sorted(draw(st.sets(st.integers(0, most), min_size=1, max_size=4)))
        return {"default": str(draw(st.sampled_from(values))), "validValues": [str(value) for value in values]}
    minimum = draw(st.integers(0, most - 1))
    if kind == "range":
        maximum = draw(st.integers(minimum, most))
        default = draw(st.integers(minimum, maximum))
        return {"default": str(default), "validRange": {"min": str(minimum), "max": str(maximum)}}
    step = draw(st.integers(1, most - minimum))
    steps = (most - minimum) // step
    maximum = draw(st.integers(0, steps))
    bounds = {"min": str(minimum), "step": str(step)}
    if draw(st.booleans()):
        bounds["max"] = str(minimum + maximum * step)
    return {"default": str(minimum + draw(st.integers(0, maximum)) * step), "validRange": bounds}


@st.composite
def devices(draw: st.DrawFn, index: int, *, counted: bool) -> Obj:
    shared = draw(st.integers(0, 3)) > 0
    capacity: Obj = {}
    for name in draw(st.sets(st.sampled_from(["shares", "memory", f"{DRIVER}/cores"]), max_size=3)):
        most = draw(st.integers(1, 8))
        policy = draw(policies(most)) if shared else None
        capacity[name] = {"value": str(most), **({"requestPolicy": policy} if policy is not None else {})}
    device: Obj = {
        "name": f"d{index}",
        "attributes": {"model": {"string": draw(st.sampled_from("ab"))}, "index": {"int": index}},
    }
    if capacity:
        device["capacity"] = capacity
    if shared:
        device["allowMultipleAllocations"] = True
    if counted and draw(st.booleans()):
        counters = {"slices": {"value": str(draw(st.integers(1, 4)))}}
        device["consumesCounters"] = [{"counterSet": "set", "counters": counters}]
    if draw(st.integers(0, 9)) == 0:
        device["taints"] = [{"key": "sick", "effect": "NoSchedule"}]
    return device


@st.composite
def slices(draw: st.DrawFn) -> list[Obj]:
    counted = draw(st.booleans())
    numbers = range(draw(st.integers(1, 4)))
    published = [draw(devices(index, counted=counted)) for index in numbers]
    if not counted:
        return [resource_slice(NODE, published)]
    most = str(draw(st.integers(1, 6)))
    counters = resource_slice(NODE, [], name="00001-n", count=2)
    del counters["spec"]["devices"]
    counters["spec"]["sharedCounters"] = [{"name": "set", "counters": {"slices": {"value": most}}}]
    return [resource_slice(NODE, published, count=2), counters]


@st.composite
def bodies(draw: st.DrawFn) -> Obj:
    mode = draw(st.sampled_from(["ExactCount", "ExactCount", "ExactCount", "All"]))
    body: Obj = {"deviceClassName": DRIVER, "allocationMode": mode}
    if mode == "ExactCount":
        body["count"] = draw(st.sampled_from([1, 1, 1, 2]))
    asked = {
        name: draw(st.sampled_from(AMOUNTS))
        for name in draw(st.sets(st.sampled_from(["shares", "memory", f"{DRIVER}/cores", "cores"]), max_size=1))
    }
    if asked:
        body["capacity"] = {"requests": asked}
    if chosen := draw(st.sets(st.sampled_from(SELECTORS), max_size=1)):
        body["selectors"] = [{"cel": {"expression": text}} for text in chosen]
    if draw(st.integers(0, 3)) == 0:
        body["tolerations"] = [{"key": "sick", "operator": "Exists"}]
    return body


@st.composite
def claims(draw: st.DrawFn, name: str) -> Obj:
    requests: list[Obj] = []
    for position in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 3)) == 0:
            listed = [{"name": f"s{index}", **draw(bodies())} for index in range(draw(st.integers(1, 3)))]
            requests.append({"name": f"r{position}", "firstAvailable": listed})
        else:
            requests.append({"name": f"r{position}", "exactly": draw(bodies())})
    # A device of an All request that breaks a constraint makes kube-scheduler give up on the pod, even where another
    # alternative would do; ours tries that one.
    takes_all = any(body["allocationMode"] == "All" for request in requests for body in _bodies_of(request))
    kind = None if takes_all else draw(st.sampled_from(["matchAttribute", "distinctAttribute", None, None]))
    attribute = f"{DRIVER}/{draw(st.sampled_from(['model', 'index']))}"
    return claim(name, *requests, constraints=[{kind: attribute}] if kind else [])


def _bodies_of(request: Obj) -> list[Obj]:
    return request.get("firstAvailable") or [request["exactly"]]


@st.composite
def pods(draw: st.DrawFn, name: str) -> list[Obj]:
    """The claims of one pod."""
    return [draw(claims(f"{name}-{number}")) for number in range(draw(st.integers(1, 2)))]
