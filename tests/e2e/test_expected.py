"""Which GPUs a container must see."""

from __future__ import annotations

from dra_driver.kube.interface import Obj
from e2e.kit.expected import claim_names, devices_of_container, minors, results_of
from e2e.kit.workloads import Container, Use, pod


def _claim(*results: tuple[str, str], driver: str = "gpu.nvidia.com") -> Obj:
    found = [{"request": request, "pool": "n", "device": device, "driver": driver} for request, device in results]
    return {"status": {"allocation": {"devices": {"results": found}}}}


def test_results_are_those_of_this_driver() -> None:
    assert [str(result.device) for result in results_of(_claim(("gpu", "gpu-3")))] == ["gpu-3"]
    assert results_of(_claim(("nic", "nic-0"), driver="nic.example.com")) == ()
    assert results_of({"status": {}}) == ()
    assert results_of({}) == ()


def test_container_sees_all_requests_of_a_claim_or_the_one_it_names() -> None:
    body = pod("p", Use(claim="c"), containers=(Container("all"), Container("one", claims=("gpu/b",))))
    claims = {"c": _claim(("a", "gpu-1"), ("b", "gpu-2"))}
    assert minors(devices_of_container(body, "all", claims)) == {1, 2}
    assert minors(devices_of_container(body, "one", claims)) == {2}


def test_alternatives_are_named_by_their_request() -> None:
    body = pod("p", Use(claim="c"), containers=(Container("one", claims=("gpu/gpu",)),))
    claims = {"c": _claim(("gpu/pair", "gpu-4"), ("gpu/pair", "gpu-5"))}
    assert minors(devices_of_container(body, "one", claims)) == {4, 5}


def test_claims_of_templates_are_known_once_they_are_made() -> None:
    body = pod("p", Use(template="t"))
    assert claim_names(body) == {}
    body["status"] = {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]}
    assert claim_names(body) == {"gpu": "p-gpu-x"}


def test_extended_resources_go_to_the_container_that_asked() -> None:
    body = pod("p", containers=(Container("a", limits={"nvidia.com/gpu": "1"}), Container("b")))
    mappings = [{"containerName": "a", "resourceName": "nvidia.com/gpu", "requestName": "container-0-request-0"}]
    body["status"] = {"extendedResourceClaimStatus": {"resourceClaimName": "x", "requestMappings": mappings}}
    claims = {"x": _claim(("container-0-request-0", "gpu-6"))}
    assert claim_names(body) == {"": "x"}
    assert minors(devices_of_container(body, "a", claims)) == {6}
    assert devices_of_container(body, "b", claims) == ()


def test_a_mig_device_is_seen_as_its_gpu() -> None:
    assert minors(results_of(_claim(("mig", "gpu-2-mig-1g5gb-19-0")))) == {2}
