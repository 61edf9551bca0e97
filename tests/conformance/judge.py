"""Tempest and openstacksdk in an environment and a workspace of their own: what there is, running it, what came out."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
VENV = CHECKOUT / ".cache" / "tests" / "tempest-venv"
WORKSPACE = CHECKOUT / ".cache" / "tests" / "tempest"
OUTPUT = WORKSPACE / "output.txt"

INSTALL_S = 600
LIST_S = 120
SESSION_S = 180
WORKERS = 2
"""More only wait for each other: most of a test is setting up its own users, projects and networks."""

_LINE = re.compile(r"^\{\d+\} (?P<name>\S+(?: \(\S+\))?) .*\.\.\. (?P<outcome>ok|FAILED|SKIPPED)")


@dataclass(frozen=True)
class Line:
    """One line of a list: a regular expression and, in the list of exceptions, the reason."""

    pattern: re.Pattern[str]
    reason: str

    def matches(self, name: str) -> bool:
        return self.pattern.search(name) is not None


@dataclass(frozen=True)
class Outcome:
    """How one test ended: ok, FAILED or SKIPPED. A class whose set-up failed is one, named `setUpClass (…)`."""

    name: str
    outcome: str


def lines(path: Path) -> list[Line]:
    """A list from its file."""
    found = []
    for text in path.read_text().splitlines():
        pattern, _, reason = text.partition("#")
        if pattern.strip():
            found.append(Line(re.compile(pattern.strip()), reason.strip()))
    return found


def install() -> None:
    """Tempest, once, and again when the requirements change."""
    VENV.parent.mkdir(parents=True, exist_ok=True)
    with VENV.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = VENV / f"requirements-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
        if stamp.exists():
            return
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True, timeout=INSTALL_S)
        pip = [
            VENV / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-qq",
            "--disable-pip-version-check",
            "-r",
            REQUIREMENTS,
        ]
        subprocess.run(pip, check=True, timeout=INSTALL_S)
        stamp.touch()


def new_workspace(configure: Callable[[Path], None]) -> None:
    """An empty workspace; `configure` writes its tempest.conf."""
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    _tempest("init", "--workspace-path", WORKSPACE / "workspaces.yaml", WORKSPACE, cwd=WORKSPACE.parent)
    configure(WORKSPACE)


def every_test() -> list[str]:
    """The names of all of Tempest's tests."""
    listed = _tempest("run", "--list-tests", *_workspace(), cwd=WORKSPACE)
    return [line for line in listed.splitlines() if line.startswith("tempest.")]


def run(names: Iterable[str], timeout_s: float) -> list[Outcome]:
    """Run these; what Tempest says about failures is in OUTPUT. Raises TimeoutExpired."""
    chosen = WORKSPACE / "chosen.txt"
    chosen.write_text("".join(f"{name}\n" for name in sorted(names)))
    argv = [VENV / "bin" / "tempest", "run", *_workspace(), "--load-list", chosen, "--concurrency", str(WORKERS)]
    with OUTPUT.open("w") as file:
        subprocess.run(
            argv,
            cwd=WORKSPACE,
            env=_environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    matches = (_LINE.match(line) for line in OUTPUT.read_text().splitlines())
    return [Outcome(one["name"], one["outcome"]) for one in matches if one is not None]


def session(clouds_yaml: Path) -> list[Outcome]:
    """Run session.py with the SDK; what failed is told at once. Raises TimeoutExpired."""
    argv = [VENV / "bin" / "python", "-W", "ignore", HERE / "session.py", clouds_yaml]
    done = subprocess.run(
        argv, cwd=WORKSPACE, env=_environment(), capture_output=True, text=True, timeout=SESSION_S, check=False
    )
    outcomes = []
    for line in done.stdout.splitlines():
        outcome, _, rest = line.partition(" ")
        outcomes.append(Outcome(f"openstacksdk: {rest}", outcome))
    if not outcomes:
        outcomes.append(Outcome(f"openstacksdk: {done.stderr.strip()[-500:]}", "FAILED"))
    return outcomes


def _workspace() -> Sequence[str | Path]:
    return ("--config-file", WORKSPACE / "etc" / "tempest.conf")


def _tempest(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [VENV / "bin" / "tempest", *words],
        cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=LIST_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"tempest {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Nothing of the caller's: neither a cloud's credentials nor our own packages. Tempest keeps a file in HOME."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "PYTHON"))}
    return {**kept, "HOME": str(WORKSPACE.parent)}
