"""The host's programs that the builder calls: is each one there, and what did it say when it failed.

The builder runs before the project's virtual environment exists, so it is on its own: standard library only,
and this is its one place that starts processes.
"""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Long enough for the slowest step (a 27 MB download over a poor line), short enough that a hung mirror is
# an error message and not a hung `make up`.
TIMEOUT_S = 600

REQUIRED = (
    "apt-get",
    "debugfs",
    "depmod",
    "dpkg-deb",
    "mcopy",
    "mke2fs",
    "mkfs.vfat",
    "qemu-img",
    "readelf",
    "strip",
    "syslinux",
)

# Debian keeps file-system tools out of an ordinary user's PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class BuildError(Exception):
    """The build cannot go on; the message says what the reader can do about it."""


def debian_packages() -> list[str]:
    """Debian packages that the builder needs on the machine it runs on."""
    lines = (HERE / "debian-packages.txt").read_text().splitlines()
    return [name for line in lines if (name := line.partition("#")[0].strip())]


def require_tools() -> None:
    """Raise BuildError naming every program that is missing and the command that installs them."""
    missing = [tool for tool in REQUIRED if shutil.which(tool, path=SEARCH_PATH) is None]
    if missing:
        install = "apt-get install --no-install-recommends " + " ".join(debian_packages())
        raise BuildError(f"missing programs: {', '.join(missing)}. Install them with:\n  {install}")


def run(*argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program to its end and return its standard output; BuildError with its standard error if it fails."""
    words = [str(word) for word in argv]
    environment = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise BuildError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{' '.join(words)} did not end within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise BuildError(f"{' '.join(words)} failed with {done.returncode}:\n{said}")
    return done.stdout
