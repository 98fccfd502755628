"""The names of the image that stands for others."""

from __future__ import annotations

import pytest

from e2e.images.workload import full_reference


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("someone/tool", "docker.io/someone/tool:latest"),
        ("registry.example.com/a/b/tool:1-ubi8", "registry.example.com/a/b/tool:1-ubi8"),
        ("localhost:5000/tool", "localhost:5000/tool:latest"),
        ("localhost/tool:1", "localhost/tool:1"),
        ("tool@sha256:" + 64 * "0", "docker.io/library/tool@sha256:" + 64 * "0"),
    ],
)
def test_an_image_has_the_name_that_runtimes_know(image: str, full: str) -> None:
    assert full_reference(image) == full
