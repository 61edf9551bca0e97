"""Is KVM real on this host? Found out by booting something, because /dev/kvm existing says nothing.

Where the host is itself a guest of certain hypervisors, /dev/kvm is there, opens, and runs a guest as far as long mode;
the first exception then ends in "KVM internal error", after which QEMU sits there paused. libvirt is fooled by it. So a
288-byte payload is booted that takes an exception in 64-bit mode (its source is kvm_probe.S beside this file), and its
end is watched: QEMU leaves with a code of ours, says that KVM failed, or says nothing until time is up.

The probe runs as QEMU will: not as root. A /dev/kvm that only root may open is of no use to a guest, and shows here.
The answer holds until the next boot and is kept in a file.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from drivers import command

PAYLOAD: Final = bytes.fromhex(
    "02b0ad1b00000100fe4f51e40000100000001000200110002001100020001000fabc00701000bf0020100031c0b9000c"
    "0000f3abc7050020100003301000c7050030100003401000c7050040100083000000c7050840100083002000b8002010"
    "000f22d80f20e083c8200f22e0b9800000c00f320d000100000f300f20c00d010000800f22c00f011508011000ea9400"
    "1000080066b810008ed88ec08ed0bc00701000bf0050100031c0b940000000f3abb8dd001000bf3050100066890766c7"
    "4702080066c74704008ec1e810668947060f011c2512011000ccf4ebfd0f20d80f22d831c00fa2b010e6f4f4ebfd6690"
    "0000000000000000ffff0000009aaf00ffff00000092cf001700f000100000000000ff0000501000000000000f1f4000"
)

PASSED: Final = 33
"""The code with which QEMU ends when the payload has reached its end: (0x10 << 1) | 1."""

NOBODY: Final = 65534

_KVM: Final = Path("/dev/kvm")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_POLL_S: Final = 0.01
_STOP_S: Final = 1.0


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe found."""

    works: bool
    why: str
    seconds: float


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The virt type of this host's domains, and why."""

    virt_type: str  # kvm | qemu
    why: str
    gid: int | None = None  # The group that may open /dev/kvm, where not everybody may.


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    conditions: str  # An answer holds for one boot, one emulator, and one set of rights on the device.
    probe: Probe


def choose(wanted: str, *, folder: str, emulator: str, timeout_s: float) -> Choice:
    """The virt type for `wanted` (auto | kvm | qemu). Probes once a boot; `folder` keeps the answer."""
    if wanted == "qemu":
        return Choice(virt_type="qemu", why="set by the operator")
    if wanted == "kvm":
        return Choice(virt_type="kvm", why="set by the operator", gid=device_gid())
    found = _remembered(folder, emulator) or _probed(folder, emulator, timeout_s)
    if found.works:
        return Choice(virt_type="kvm", why=found.why, gid=device_gid())
    return Choice(virt_type="qemu", why=f"KVM does not work here: {found.why}")


def probe(accel: str, *, emulator: str, timeout_s: float) -> Probe:
    """Boot the payload under `accel` (kvm, or tcg to prove the probe itself), as nobody."""
    start = time.monotonic()
    if accel == "kvm" and not _KVM.exists():
        return Probe(works=False, why="there is no /dev/kvm", seconds=0.0)
    # Not in the agent's folder: nobody must be able to read the payload.
    with tempfile.TemporaryDirectory(prefix="hostler-kvm-probe-") as folder:
        Path(folder).chmod(0o755)
        payload, log = Path(folder, "payload"), Path(folder, "log")
        payload.write_bytes(PAYLOAD)
        payload.chmod(0o644)
        try:
            child = command.spawn(_argv(accel, emulator, payload), log=log)
        except command.CommandFailed as failure:
            return Probe(works=False, why=str(failure), seconds=0.0)
        try:
            why = _verdict(child, log, start + timeout_s, timeout_s)
        finally:
            child.stop(_STOP_S)
    works = why is None
    seconds = round(time.monotonic() - start, 3)
    return Probe(works=works, why=why or f"a guest took an exception and ended well under {accel}", seconds=seconds)


def device_gid() -> int | None:
    """The group through which an unprivileged QEMU opens /dev/kvm; None where anybody may, or nobody."""
    try:
        status = _KVM.stat()
    except FileNotFoundError:
        return None
    if status.st_mode & 0o006 == 0o006:
        return None
    return status.st_gid if status.st_mode & 0o060 == 0o060 and status.st_gid != 0 else None


def _argv(accel: str, emulator: str, payload: Path) -> list[str]:
    gid = device_gid() if accel == "kvm" else None
    rights = (
        ["setpriv", f"--reuid={NOBODY}", f"--regid={gid or NOBODY}", "--clear-groups", "--no-new-privs", "--"]
        if os.geteuid() == 0
        else []
    )
    return [
        *rights,
        emulator,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", "on"),
        *("-machine", f"microvm,accel={accel}", "-m", "16"),  # microvm: no BIOS that takes seconds in real mode.
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
        *("-kernel", str(payload)),
    ]


def _verdict(child: command.Child, log: Path, deadline: float, timeout_s: float) -> str | None:
    """None if the payload reached its end, else why not."""
    while True:
        code = child.poll()
        said = log.read_text(errors="replace")
        if code == PASSED:
            return None
        if "KVM internal error" in said:
            return "KVM internal error at the guest's first exception"
        if code is not None:
            return f"QEMU ended with {code}: {said[-300:].strip()}"
        if time.monotonic() > deadline:
            return f"the guest did not end within {timeout_s:g} s"
        time.sleep(_POLL_S)


def _probed(folder: str, emulator: str, timeout_s: float) -> Probe:
    found = probe("kvm", emulator=emulator, timeout_s=timeout_s)
    memory = _Remembered(conditions=_conditions(emulator), probe=found)
    file = _file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".part")
    fresh.write_bytes(msgspec.json.encode(memory))
    fresh.replace(file)
    return found


def _remembered(folder: str, emulator: str) -> Probe | None:
    try:
        memory = msgspec.json.decode(_file(folder).read_bytes(), type=_Remembered)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return memory.probe if memory.conditions == _conditions(emulator) else None


def _conditions(emulator: str) -> str:
    rights = f"{_KVM.stat().st_mode:o} {device_gid()}" if _KVM.exists() else "absent"
    return f"{_BOOT_ID.read_text().strip()} {emulator} {rights}"


def _file(folder: str) -> Path:
    return Path(folder, "kvm-probe.json")
