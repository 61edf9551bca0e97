"""What the control plane costs: CPU time and memory (PSS) of its processes."""

import os
from pathlib import Path

_HZ = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: dict[str, int]) -> float:
    """User and system time of the processes so far, reaped children included."""
    return sum(_cpu_s(pid) for pid in pids.values())


def _cpu_s(pid: int) -> float:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return sum(int(field) for field in fields[11:15]) / _HZ


def pss_mib(pids: dict[str, int]) -> dict[str, float]:
    """Proportional set size of each process: shared pages count once."""
    return {name: _pss_kib(pid) / 1024 for name, pid in pids.items()}


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
