"""Children that parse the bytes of strangers: short-lived, without rights, within limits of time and memory.

Two kinds. The inspector is Python of ours, which opens the file as root and gives up its rights by itself, so the file
need not be readable for anybody. `qemu-img` opens files by name after it has lost its rights: it runs as the owner of
what it writes, whose way to the file must be passable.
"""

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from agent.wire.errors import Failed
from drivers import command
from drivers.image.inspect import Inspection, Verdict

INSPECTOR_MEMORY_MAX: Final = 512 << 20
"""Address space, of which the interpreter with its libraries takes a third."""

QEMU_IMG_MEMORY_MAX: Final = 2 << 30
"""Address space; qemu-img's threads reserve much more than they use. Well-formed images of any size fit."""

CPU_S_MAX: Final = 30
"""For an inspection. Creating and growing a disk are as cheap; a conversion has its own limit."""

_ROOT: Final = Path(__file__).resolve().parents[2]


def inspect(path: str, declared: str, *, uid: int, virtual_bytes_max: int, timeout_s: float) -> Inspection:
    """See drivers.image.inspect.inspect, in a child. A child that dies is a refusal as well: Failed either way."""
    options = ["--format", declared, "--virtual-bytes-max", str(virtual_bytes_max), "--uid", str(uid)]
    output = command.run(
        [sys.executable, "-s", "-m", "drivers.image.inspect", *options, "--", path],
        timeout_s=timeout_s,
        env={"PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        confine=command.Confinement(memory_bytes_max=INSPECTOR_MEMORY_MAX, cpu_s_max=CPU_S_MAX, file_bytes_max=0),
    )
    try:
        verdict = msgspec.json.decode(output.stdout, type=Verdict)
    except msgspec.DecodeError as cause:
        raise Failed("the image could not be inspected") from cause
    if verdict.found is None:
        raise Failed(verdict.refused)
    return verdict.found


def qemu_img(
    *arguments: str, uid: int, timeout_s: float, file_bytes_max: int | None = None, cpu_s_max: int = CPU_S_MAX
) -> command.Output:
    """qemu-img as `uid`, without network and without the means to gain rights. Raises CommandFailed."""
    return command.run(
        [*_drop(uid), "qemu-img", *arguments],
        timeout_s=timeout_s,
        cwd="/",
        confine=command.Confinement(
            memory_bytes_max=QEMU_IMG_MEMORY_MAX, cpu_s_max=cpu_s_max, file_bytes_max=file_bytes_max
        ),
    )


def _drop(uid: int) -> tuple[str, ...]:
    """What root puts in front of a program; anybody else has nothing to give up."""
    if os.geteuid() != 0:
        return ()
    isolate = ("unshare", "--net", "--ipc", "--")
    give_up = ("--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
    return (*isolate, "setpriv", f"--reuid={uid}", f"--regid={uid}", *give_up, "--")
