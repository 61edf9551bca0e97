"""What the control plane costs: CPU time and memory of its processes."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_HZ = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: dict[str, int]) -> float:
    """User and system time of the processes so far, reaped children included."""
    return sum(_cpu_s(pid) for pid in pids.values())


def _cpu_s(pid: int) -> float:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return sum(int(field) for field in fields[11:15]) / _HZ


def memory_mib(pids: dict[str, int]) -> float:
    """What the processes take together: their own pages, and once each what they share with each other.

    As the sum of their PSS would be on a machine of their own: who else has the same files mapped does not matter.
    """
    own, shared = 0, defaultdict[str, int](int)
    for pid in pids.values():
        of_files = defaultdict[str, int](int)
        for name, sizes in _mappings(pid):
            anonymous = sizes["Anonymous"]
            own += anonymous
            of_files[name] += sizes["Rss"] - anonymous
        for name, size in of_files.items():
            shared[name] = max(shared[name], size)
    return (own + sum(shared.values())) / 1024


def _mappings(pid: int) -> Iterator[tuple[str, dict[str, int]]]:
    """(file, sizes in KiB) of each mapping."""
    name, sizes = "", dict[str, int]()
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon and value.endswith(" kB"):
            sizes[key] = int(value[:-3])
        elif _RANGE.match(line):
            if sizes:
                yield name, sizes
            name, sizes = " ".join(line.split()[5:]) or f"anonymous of {pid}", {}
    if sizes:
        yield name, sizes


_RANGE = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
