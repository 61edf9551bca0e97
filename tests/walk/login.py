"""SSH into guests: one command, or a session that stays and counts the seconds in which it was answered."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.walk.cloud import PATIENCE_S, eventually

_OPTIONS = (
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "ConnectTimeout=5",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=6",
)


@dataclass(frozen=True)
class Login:
    """A user of a guest: by address, with a key, over another guest if that one is nearer."""

    address: str
    key: Path
    over: "Login | None" = None
    user: str = "cloud"

    def argv(self, *command: str) -> list[str]:
        words = ["ssh", "-i", str(self.key), *(word for option in _OPTIONS for word in ("-o", option))]
        if self.over is not None:
            nearer = self.over.argv("-W", "%h:%p")
            # -W belongs before the address.
            words += ["-o", "ProxyCommand=" + " ".join([*nearer[:-3], *nearer[-2:], nearer[-3]])]
        return [*words, f"{self.user}@{self.address}", *command]

    def run(self, command: str, timeout_s: float = PATIENCE_S) -> str:
        """What a command printed; it must succeed."""
        done = subprocess.run(self.argv(command), capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"ssh {self.address} {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def wait(self, timeout_s: float = 2 * PATIENCE_S) -> None:
        """Until a login works."""
        eventually(f"SSH to {self.address}", lambda: self.run("true", 30) == "", timeout_s)

    def is_refused(self) -> bool:
        """No login, now."""
        done = subprocess.run(self.argv("true"), capture_output=True, timeout=60, check=False)
        return done.returncode != 0

    @contextlib.contextmanager
    def session(self) -> Iterator["Session"]:
        """One SSH connection that lives as long as the block, through whatever happens inside."""
        process = subprocess.Popen(
            self.argv("while echo $((i=i+1)); do sleep 0.5; done"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        session = Session(process)
        threading.Thread(target=session.listen, daemon=True).start()
        try:
            session.goes_on("at its start")
            yield session
        finally:
            process.kill()
            process.wait()


@dataclass
class Session:
    """A connection over which the guest counts."""

    process: subprocess.Popen[bytes]
    lines: list[bytes] = field(default_factory=list)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def goes_on(self, when: str) -> None:
        """The very same connection still brings new numbers."""
        heard = len(self.lines)
        deadline = time.monotonic() + PATIENCE_S
        while len(self.lines) < heard + 2:
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the SSH session ended {when}: {self.lines[-3:]}")
            time.sleep(0.1)
