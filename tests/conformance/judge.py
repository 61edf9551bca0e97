"""Tempest and openstacksdk in an environment and a workspace of their own: what there is, running it, what came out."""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.conformance.verdict import Lists, Outcome, lines

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
VENV = CHECKOUT / ".cache" / "tests" / "tempest-venv"
WORKSPACE = CHECKOUT / ".cache" / "tests" / "tempest"
OUTPUT = WORKSPACE / "output.txt"
LOG = WORKSPACE / "tempest.log"
CLOUD_LOGS = WORKSPACE.parent / "tempest-cloud-logs"

INSTALL_S = 600
LIST_S = 120
SESSION_S = 180
WORKERS = 2
"""More only wait for each other: most of a test is setting up its own users, projects and networks."""

_OUTCOME = re.compile(
    r"^\{\d+\} (?P<name>\S+(?: \(\S+\))?) .*?\.\.\. (?P<outcome>ok|FAILED|SKIPPED)(?:: (?P<reason>.*))?"
)
_SERVER_ERROR = re.compile(r"Request \((?P<test>\S+?)\): (?P<what>5\d\d .*)")


class NotJudged(Exception):
    """Nothing can be said about the cloud; says what was in the way."""


def own_lists() -> Lists:
    """The lists beside this file."""
    return Lists(*(lines((HERE / f"{name}.txt").read_text()) for name in ("include", "expected", "accidental")))


def install() -> None:
    """Tempest, once, and again when the requirements change or an earlier attempt was cut off."""
    VENV.parent.mkdir(parents=True, exist_ok=True)
    with VENV.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = VENV / f"requirements-{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
        if stamp.exists():
            return
        print("Installing Tempest, once.", flush=True)
        _done([sys.executable, "-m", "venv", "--clear", VENV], VENV.parent, INSTALL_S)
        pip: list[str | Path] = [VENV / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        _done([*pip, "-r", REQUIREMENTS], VENV.parent, INSTALL_S)
        stamp.touch()


def new_workspace(configure: Callable[[Path], None]) -> None:
    """An empty workspace; `configure` writes its tempest.conf."""
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    _tempest("init", "--workspace-path", WORKSPACE / "workspaces.yaml", WORKSPACE, cwd=WORKSPACE.parent)
    (WORKSPACE / "tmp").mkdir()
    configure(WORKSPACE)


def every_test() -> list[str]:
    """The names of all of Tempest's tests."""
    listed = _tempest("run", "--list-tests", *_workspace(), cwd=WORKSPACE)
    return [line for line in listed.splitlines() if line.startswith("tempest.")]


def run(names: Iterable[str], timeout_s: float) -> list[Outcome]:
    """Run these; what Tempest says about failures is in OUTPUT. Raises NotJudged when they do not end."""
    chosen = WORKSPACE / "chosen.txt"
    chosen.write_text("".join(f"{name}\n" for name in sorted(names)))
    argv: list[str | Path] = [
        VENV / "bin" / "tempest",
        "run",
        *_workspace(),
        "--load-list",
        chosen,
        "--concurrency",
        str(WORKERS),
    ]
    _, printed = _ended(argv, WORKSPACE, timeout_s, OUTPUT)
    return outcomes_in(printed)


def outcomes_in(text: str) -> list[Outcome]:
    """What `tempest run` printed, read."""
    matches = (_OUTCOME.match(line) for line in text.splitlines())
    return [Outcome(one["name"], one["outcome"], one["reason"] or "") for one in matches if one is not None]


def server_errors() -> list[Outcome]:
    """Every answer of Tempest's last run that began with a 5, whatever its test made of it: always our bug."""
    matches = (_SERVER_ERROR.search(line) for line in LOG.read_text(errors="replace").splitlines())
    return [Outcome(f"{one['test']}: {one['what']}", "FAILED") for one in matches if one is not None]


def session(clouds_yaml: Path) -> list[Outcome]:
    """Run session.py with the SDK. Raises NotJudged when it does not end."""
    argv: list[str | Path] = [VENV / "bin" / "python", "-W", "ignore", HERE / "session.py", clouds_yaml]
    _, printed = _ended(argv, WORKSPACE, SESSION_S)
    told = (line.partition(" ") for line in printed.splitlines() if line.startswith(("ok ", "FAILED ")))
    outcomes = [Outcome(f"openstacksdk: {rest}", outcome) for outcome, _, rest in told]
    return outcomes or [Outcome(f"openstacksdk: {printed.strip()[-500:]}", "FAILED")]


def _workspace() -> Sequence[str | Path]:
    return ("--config-file", WORKSPACE / "etc" / "tempest.conf")


def _tempest(*words: str | Path, cwd: Path) -> str:
    return _done([VENV / "bin" / "tempest", *words], cwd, LIST_S)


def _done(argv: Sequence[str | Path], cwd: Path, timeout_s: float) -> str:
    """What it printed. Raises NotJudged when it fails."""
    code, printed = _ended(argv, cwd, timeout_s)
    if code != 0:
        raise NotJudged(f"{' '.join(map(str, argv))} ended with {code}:\n{printed.strip()[-2000:]}")
    return printed


def _ended(argv: Sequence[str | Path], cwd: Path, timeout_s: float, output: Path | None = None) -> tuple[int, str]:
    """Its code and what it printed. Whatever ends the wait early ends everything that it started, too."""
    with (
        output.open("w+") if output else tempfile.TemporaryFile("w+") as sink,
        subprocess.Popen(
            argv,
            cwd=cwd,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        ) as process,
    ):
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise NotJudged(f"{' '.join(map(str, argv))} did not end within {timeout_s:.0f} s") from error
        finally:
            _kill_group(process.pid)
        sink.seek(0)
        return process.returncode, sink.read()


def _kill_group(group_id: int) -> None:
    """Tempest's workers are its children: killing it alone would leave them at work on a cloud that goes."""
    try:
        os.killpg(group_id, signal.SIGKILL)
    except ProcessLookupError:
        return


def _environment() -> dict[str, str]:
    """Nothing of the caller's: neither a cloud's credentials nor our own packages. Temporary files go with the rest."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "PYTHON"))}
    room = WORKSPACE / "tmp"
    return {**kept, "HOME": str(WORKSPACE.parent), **({"TMPDIR": str(room)} if room.is_dir() else {})}
