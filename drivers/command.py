"""Programs of the host: argv in, captured output back. The only place of the tree that starts processes.

No shell is ever involved. Output is captured and bounded, every call has a time limit, and what is left of the
program's process group when the limit passes is killed. Failures are `CommandFailed`, which says what was run and
how its stderr ended; arguments therefore must not hold secrets (pass those by `input` or by a file).
"""

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from agent.wire.errors import Failed
from drivers.network import netns as namespaces

OUTPUT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Stdout beyond this is an error, not a cut: half an answer read as a whole one is worse than none."""

STDERR_BYTES_KEPT: Final = 16 * 1024
"""The end of stderr that is kept; programs say last why they gave up."""

MESSAGE_BYTES_KEPT: Final = 600
"""How much of stderr an error's sentence repeats."""

_CHUNK: Final = 65536
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What a program said, and how it ended (a negative code is the signal that killed it)."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Stdout as text; bytes that are no UTF-8 become U+FFFD."""
        return self.stdout.decode("utf-8", "replace")


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for a program that parses bytes of strangers. `None` leaves one as it is."""

    uid: int | None = None  # Also the gid; supplementary groups are dropped.
    memory_bytes_max: int | None = None  # Address space.
    cpu_s_max: int | None = None
    file_bytes_max: int | None = None


class CommandFailed(Failed):
    """A program could not be started, or ended with a code that was not expected."""

    def __init__(self, why: str, output: Output) -> None:
        self.output = output
        said = output.stderr[-MESSAGE_BYTES_KEPT:].decode("utf-8", "replace").strip()
        super().__init__(f"{shlex.join(output.argv)}: {why}" + (f": {said}" if said else ""))


class CommandTimeout(CommandFailed):
    """A program was killed because its time had passed."""


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    netns: str | None = None,
    codes: tuple[int, ...] = (0,),
    confine: Confinement | None = None,
) -> Output:
    """Run a program to its end, optionally inside the network namespace `netns`.

    `env` is added to a minimal environment (PATH, LC_ALL=C). Raises CommandFailed if it cannot be started, says more
    than OUTPUT_BYTES_MAX, or ends with a code that is not in `codes`; CommandTimeout after `timeout_s`.
    """
    words = tuple(str(word) for word in argv)
    process = namespaces.call(netns, lambda: _start(words, input is not None, env, cwd, confine))
    try:
        output = _collect(words, process, input or b"", time.monotonic() + timeout_s, timeout_s)
    finally:
        _kill_group(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    if output.code not in codes:
        raise CommandFailed(f"ended with {output.code}", output)
    return output


class Child:
    """A program that runs beside the agent; `stop` ends it and what it started in its process group."""

    def __init__(self, argv: tuple[str, ...], process: subprocess.Popen[bytes]) -> None:
        self.argv = argv
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        """Its code, or None while it runs."""
        return self._process.poll()

    def stop(self, timeout_s: float) -> int:
        """SIGTERM, after `timeout_s` SIGKILL, to the process group; returns its code."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


def spawn(
    argv: Sequence[str | Path],
    *,
    log: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    netns: str | None = None,
) -> Child:
    """Start a program that stays, in its own session; stdout and stderr are appended to the file `log`."""
    words = tuple(str(word) for word in argv)

    def start() -> subprocess.Popen[bytes]:
        with Path(log).open("ab") as sink:
            return _popen(words, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, cwd=cwd, uid=None)

    return Child(words, namespaces.call(netns, start))


def _start(
    argv: tuple[str, ...],
    has_input: bool,
    env: Mapping[str, str] | None,
    cwd: str | Path | None,
    confine: Confinement | None,
) -> subprocess.Popen[bytes]:
    stdin = subprocess.PIPE if has_input else subprocess.DEVNULL
    words = (*_limits(confine), *argv) if confine else argv
    uid = confine.uid if confine else None
    return _popen(words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd, uid=uid)


def _popen(
    argv: tuple[str, ...],
    *,
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    env: Mapping[str, str] | None,
    cwd: str | Path | None,
    uid: int | None,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={"PATH": _PATH, "LC_ALL": "C", **(env or {})},
            cwd=cwd,
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    except OSError as cause:
        output = Output(argv=argv, code=-1, stdout=b"", stderr=b"")
        raise CommandFailed(f"cannot be started ({cause.strerror})", output) from cause


def _limits(confine: Confinement) -> tuple[str, ...]:
    """prlimit(1) in front of the program: limits without code between fork and exec of a process with threads."""
    limits = {"--as": confine.memory_bytes_max, "--cpu": confine.cpu_s_max, "--fsize": confine.file_bytes_max}
    return ("prlimit", *(f"{name}={value}" for name, value in limits.items() if value is not None), "--core=0", "--")


def _collect(
    argv: tuple[str, ...], process: subprocess.Popen[bytes], to_write: bytes, deadline: float, timeout_s: float
) -> Output:
    """Feed stdin and read both pipes until the program ends, its output is too long, or time is up."""
    stdout, stderr = bytearray(), bytearray()

    def output(code: int) -> Output:
        return Output(argv=argv, code=code, stdout=bytes(stdout), stderr=bytes(stderr))

    with selectors.DefaultSelector() as selector:
        _register(selector, process)
        while selector.get_map():
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise CommandTimeout(f"took longer than {timeout_s:g} s", output(-signal.SIGKILL))
            for key, _ in selector.select(remaining_s):
                if key.fileobj is process.stdin:
                    to_write = _feed(selector, process.stdin, to_write)
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    stdout += chunk
                else:
                    stderr += chunk
                    del stderr[:-STDERR_BYTES_KEPT]
                if len(stdout) > OUTPUT_BYTES_MAX:
                    raise CommandFailed(f"said more than {OUTPUT_BYTES_MAX} bytes", output(-signal.SIGKILL))
    try:
        return output(process.wait(max(0.0, deadline - time.monotonic())))
    except subprocess.TimeoutExpired as cause:
        raise CommandTimeout(f"took longer than {timeout_s:g} s", output(-signal.SIGKILL)) from cause


def _register(selector: selectors.BaseSelector, process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None and process.stderr is not None, "both are pipes"
    selector.register(process.stdout, selectors.EVENT_READ)
    selector.register(process.stderr, selectors.EVENT_READ)
    if process.stdin is not None:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)


def _feed(selector: selectors.BaseSelector, stdin: IO[bytes], to_write: bytes) -> bytes:
    """Write what fits; close when all is written or the program does not want it."""
    try:
        to_write = to_write[os.write(stdin.fileno(), to_write[:_CHUNK]) :]
    except BlockingIOError:
        return to_write
    except BrokenPipeError:
        to_write = b""
    if not to_write:
        selector.unregister(stdin)
        stdin.close()
    return to_write


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a program that was given up, and reap it. One that ended by itself is left alone.

    So a daemon that put itself into the background (dnsmasq) lives on.
    """
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
