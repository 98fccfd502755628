"""Whether a node has MPS to fence with, while its supervisor comes and goes."""

from __future__ import annotations

from dra_driver.errors import HardwareError
from dra_driver.mps.group import LEGACY, NAMED
from kubelet_plugin.kinds.fence.serving import MpsPresence


class Supervisor:
    def __init__(self) -> None:
        self.absence = ""
        self.speaks: tuple[int, ...] | None = (LEGACY, NAMED)
        self.now = 0.0

    def protocols(self) -> tuple[int, ...]:
        if self.speaks is None:
            raise HardwareError("it does not answer")
        return self.speaks

    def presence(self) -> MpsPresence:
        return MpsPresence(self, grace=60.0, clock=lambda: self.now)


def said(presence: MpsPresence) -> tuple[bool | None, bool | None]:
    return presence.is_there(), presence.speaks_named()


def test_a_supervisor_that_is_exchanged_is_not_gone() -> None:
    supervisor = Supervisor()
    presence = supervisor.presence()
    assert said(presence) == (True, True)
    supervisor.absence = "there is no socket"
    assert said(presence) == (None, None)
    supervisor.now = 59.0
    assert said(presence) == (None, None)
    supervisor.absence = ""
    assert said(presence) == (True, True)
    supervisor.absence, supervisor.now = "there is no socket", 100.0
    assert said(presence) == (None, None), "it was back meanwhile"
    supervisor.now = 160.0
    assert said(presence) == (False, False)


def test_namespaces_are_as_the_supervisor_says() -> None:
    supervisor = Supervisor()
    presence = supervisor.presence()
    supervisor.speaks = (LEGACY,)
    assert said(presence) == (True, False)
    supervisor.speaks = None
    assert said(presence) == (True, None)
