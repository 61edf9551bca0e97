"""What a guest's hypervisor is told when it is not to leave after all.

The moment in which QEMU waits for ever cannot be brought about at will, so what is sent then is what is looked at.
`tests/walk/test_live.py` calls off migrations of real guests.
"""

import json
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from drivers.hypervisor.libvirt import moving


class Leaving:
    """A domain with a job that is told to end."""

    def __init__(self, state: int, *, has_job: bool = True) -> None:
        self._state = state
        self._has_job = has_job
        self.aborted = 0

    def abortJob(self) -> None:  # noqa: N802 libvirt's name
        if not self._has_job:
            raise libvirt.libvirtError("no job is active on the domain")
        self.aborted += 1

    def state(self) -> list[int]:
        return [self._state, 0]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """To QEMU, past libvirt."""
    found: list[dict[str, Any]] = []

    def command(domain: object, text: str, flags: int) -> str:
        found.append(json.loads(text))
        raise libvirt.libvirtError("Migration not in expected state: active")

    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", command)
    return found


def test_one_that_stands_still_already_is_freed_from_waiting(said: list[dict[str, Any]]) -> None:
    domain = Leaving(libvirt.VIR_DOMAIN_PAUSED)
    moving.stop(domain)
    assert domain.aborted == 1
    assert said == [{"execute": "migrate-continue", "arguments": {"state": "cancelling"}}]


def test_one_whose_job_hears_nothing_is_freed_too(said: list[dict[str, Any]]) -> None:
    moving.stop(Leaving(libvirt.VIR_DOMAIN_PAUSED, has_job=False))
    assert len(said) == 1


def test_one_that_runs_is_only_told_to_end(said: list[dict[str, Any]]) -> None:
    domain = Leaving(libvirt.VIR_DOMAIN_RUNNING)
    moving.stop(domain)
    assert (domain.aborted, said) == (1, [])
