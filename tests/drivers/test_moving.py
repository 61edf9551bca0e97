"""What a guest's hypervisor is told when it is not to leave after all, so that neither libvirt nor QEMU waits for ever.

The moments in which they would cannot be brought about at will, so a stand-in behaves as the real ones did then;
`tests/walk/test_live.py` calls off migrations of real guests.
"""

import json
from collections.abc import Callable
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from agent.wire.errors import Busy
from drivers.hypervisor.libvirt import moving

RUNNING, PAUSED = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED
SENDING = libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT


class Leaving:
    """A domain that is sent, until `ends` says that what it was told so far lets it end."""

    def __init__(self, status: str, state: int, ends: Callable[[list[str]], bool]) -> None:
        self.status = status
        self._state = state
        self._ends = ends
        self.told: list[str] = []

    def UUIDString(self) -> str:  # noqa: N802 libvirt's name
        return "6a1f1d94-5d3c-4c0e-8d0f-3f3a5b1f7c11"

    def jobStats(self) -> dict[str, int]:  # noqa: N802
        return {} if self._ends(self.told) else {"operation": SENDING}

    def abortJob(self) -> None:  # noqa: N802
        self.told.append("abort")

    def state(self) -> list[int]:
        return [self._state, 0]

    def resume(self) -> None:
        self.told.append("resume")

    def qemu(self, command: dict[str, Any]) -> dict[str, Any]:
        name = command["execute"]
        if name == "query-migrate":
            return {"status": self.status}
        self.told.append(name)
        if command["arguments"] not in ({}, {"state": self.status}):
            raise libvirt.libvirtError("Migration not in expected state")
        return {}


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(domain: Leaving, text: str, flags: int) -> str:
        return json.dumps({"return": domain.qemu(json.loads(text))})

    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", command)
    for name, short in (("LOOK_S", 0.01), ("STUCK_S", 0.05), ("END_S", 0.5)):
        monkeypatch.setattr(moving, name, short)


def test_one_that_runs_is_told_to_end_and_nothing_else() -> None:
    domain = Leaving("active", RUNNING, lambda told: len(told) >= 3)
    moving.stop(domain)
    assert set(domain.told) == {"abort"}


def test_qemu_that_ends_and_waits_to_go_on_is_told_to_go_on() -> None:
    domain = Leaving("cancelling", PAUSED, lambda told: "migrate-continue" in told)
    moving.stop(domain)
    assert domain.told == ["abort", "migrate-continue", "abort"]


def test_libvirt_that_waits_for_a_guest_that_went_on_is_shown_one_that_stands_still() -> None:
    domain = Leaving("cancelled", RUNNING, lambda told: "stop" in told)
    moving.stop(domain)
    assert domain.told.count("abort") > 2 and domain.told[-3:] == ["stop", "abort", "resume"], "it had its time before"


def test_one_that_does_not_end_is_told_of() -> None:
    domain = Leaving("active", RUNNING, lambda told: False)
    with pytest.raises(Busy, match="still being sent"):
        moving.stop(domain)
