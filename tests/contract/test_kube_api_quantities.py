"""How a server writes the quantities that it is given, asked of every implementation; recorded from 1.37.2."""

from __future__ import annotations

import pytest

from dra_driver.kube.interface import RESOURCE_CLAIMS, RESOURCE_SLICES
from tests.contract.conftest import Cluster
from tests.contract.objects import claim, resource_slice

KEPT = (
    *("0", "100", "1.", "1.342G", "1.500", "25e0", "1e3", "5e3", "1e-3", "100m", "1500m", "785102536m", "1E", "999e15"),
    *("1n", "+1Gi", "010", "007Mi", "+047G", "8Gi", "1536Mi", "1025Mi", "1024", "8000000Gi", "123456789012345678"),
)
CANONICAL = {
    "00": "0",
    "0000m": "0",
    "1.5": "1500m",
    "1.5000": "1500m",
    "0.001": "1m",
    "1.5G": "1500M",
    "5E1": "50",
    "1e1": "10",
    "1.5e3": "1500",
    "10e-1": "1",
    "1000": "1k",
    "1000m": "1",
    "088e2": "8800",
    "0.5Gi": "512Mi",
    ".5Gi": "512Mi",
    "1024Ki": "1Mi",
    "16Ei": "9223372036854775807",
    "0.1n": "1n",
    "1.0000000001": "1000000001n",
    "3248842131919680082e0": "3248842131919680082",
}


@pytest.mark.parametrize(("given", "served"), [*((text, text) for text in KEPT), *CANONICAL.items()])
def test_a_quantity_keeps_its_text_where_the_server_takes_it_to_be_canonical(
    cluster: Cluster, given: str, served: str
) -> None:
    wanted = resource_slice("x", node="n1")
    wanted["spec"]["devices"] = [{"name": "gpu-0", "capacity": {"memory": {"value": given}}}]
    echo = cluster.api.create(RESOURCE_SLICES, wanted, dry_run=True)
    assert echo["spec"]["devices"][0]["capacity"]["memory"]["value"] == served


def test_an_amount_that_is_null_is_nothing(cluster: Cluster) -> None:
    if cluster.is_older:
        pytest.skip("1.34 drops requests of capacities (gate DRAConsumableCapacity)")
    request = {"deviceClassName": "gpu.nvidia.com", "capacity": {"requests": {"memory": None}}}
    body = claim("x", cluster.namespace)
    body["spec"]["devices"]["requests"] = [{"name": "gpu", "exactly": request}]
    echo = cluster.api.create(RESOURCE_CLAIMS, body, dry_run=True)
    assert echo["spec"]["devices"]["requests"][0]["exactly"]["capacity"] == {"requests": {"memory": "0"}}
