"""What the driver's files are for: a container finds libcuda by its names, and nvidia-smi shows its GPU and no other.

Where the node has nvidia-cdi-hook (local clusters), links and the linker's cache come from hooks; elsewhere (kind) from
mounts. A container sees no difference.
"""

from __future__ import annotations

import pytest

from e2e.kit.pools import gpus
from e2e.kit.space import Space
from e2e.kit.stage import Stage
from e2e.kit.workloads import Use, claim_spec, pod

_LIBRARIES = "/usr/lib/x86_64-linux-gnu"


@pytest.mark.simulated
def test_a_container_finds_the_driver_and_its_own_gpu(stage: Stage, space: Space) -> None:
    space.template("one", claim_spec())
    space.pod(pod("user", Use(template="one")))
    space.wait_ready("user")

    def run(*command: str) -> str:
        return stage.kubectl.execute(space.namespace, "user", "main", command)

    (held,) = space.devices_of("user")
    (gpu,) = [gpu for gpu in gpus(stage.api, held.pool) if gpu.name == held.device]
    listed = run("nvidia-smi", "-L").splitlines()
    assert len(listed) == 1
    assert f"UUID: {gpu.uuid}" in listed[0]
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        assert run("sh", "-c", f"test -s {_LIBRARIES}/{name} && echo there") == "there\n"
