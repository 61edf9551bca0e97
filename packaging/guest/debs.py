"""Debian packages as building material: found by apt, kept in a cache, unpacked without being installed.

apt's lists say which version is current. A cached file of that version is used as it is; what is missing is
downloaded in one go. When the lists are missing or the network is down, the newest cached version of each
package serves, so a second build works offline. apt verifies signatures and checksums of what it downloads;
the cache is trusted because only this module writes to it.
"""

import re
import sys
import tempfile
from functools import cmp_to_key
from pathlib import Path

from tools import BuildError, run

KERNEL_META = "linux-image-cloud-amd64"  # empty; depends on the current cloud kernel by its versioned name

# As root apt would switch to its own user, who cannot write to our cache folder.
APT = ("apt-get", "-q", "-o", "APT::Sandbox::User=root")

ADVICE = "Run `apt-get update` (as root, with network) and build again, or copy a filled cache folder here."


def fetch(names: list[str], cache: Path) -> dict[str, Path]:
    """One .deb a name, from the cache or the network. BuildError when one can be had from neither."""
    cache.mkdir(parents=True, exist_ok=True)
    try:
        wanted = _candidates(names)
        _download([name for name in names if not (cache / wanted[name]).exists()], cache)
        return {name: cache / wanted[name] for name in names}
    except BuildError as error:
        found = {name: _newest_cached(name, cache) for name in names}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise BuildError(f"no package file for {', '.join(missing)}. {ADVICE}\n{error}") from error
        print(f"Using cached packages only: {error}", file=sys.stderr)
        return {name: path for name, path in found.items() if path is not None}


def fetch_kernel(meta: Path, cache: Path) -> Path:
    """The .deb of the kernel that the package KERNEL_META depends on."""
    depends = run("dpkg-deb", "-f", meta, "Depends")
    match = re.search(r"\blinux-image-[\w.-]+", depends)
    if match is None:
        raise BuildError(f"{meta.name} depends on no kernel: {depends.strip()}")
    return fetch([match[0]], cache)[match[0]]


def unpack(debs: list[Path], into: Path) -> Path:
    """Extract packages over one another, running none of their scripts."""
    into.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        run("dpkg-deb", "-x", deb, into)
    return into


def _candidates(names: list[str]) -> dict[str, str]:
    """File name of the current version of each package, by apt's lists; no network is used."""
    try:
        # Elsewhere than here: apt leaves out packages whose files lie in the current folder.
        printed = run(*APT, "download", "--print-uris", *names, cwd=Path("/"))
    except BuildError as error:
        complaints = str(error).splitlines()
        raise BuildError(
            f"apt does not know every package: {complaints[1]} (and {len(complaints) - 2} more)"
        ) from error
    files = re.findall(r"^'[^']+' (\S+\.deb) ", printed, re.MULTILINE)
    by_name = {file.partition("_")[0]: file for file in files}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise BuildError(f"apt does not know {', '.join(unknown)}")
    return by_name


def _download(names: list[str], cache: Path) -> None:
    if not names:
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        run(*APT, "download", *names, cwd=Path(folder))
        # Renamed only when whole: an interrupted download never looks like a cached package.
        for deb in Path(folder).glob("*.deb"):
            deb.replace(cache / deb.name)


def _newest_cached(name: str, cache: Path) -> Path | None:
    found = sorted(cache.glob(f"{name}_*.deb"), key=cmp_to_key(_compare_versions))
    return found[-1] if found else None


def _compare_versions(left: Path, right: Path) -> int:
    versions = [path.name.split("_")[1].replace("%3a", ":") for path in (left, right)]
    if versions[0] == versions[1]:
        return 0
    # dpkg answers by its exit status: 0 is true, 1 is false.
    said = run("sh", "-c", 'dpkg --compare-versions "$1" lt "$2" && echo less || :', "sh", *versions)
    return -1 if said.strip() else 1
