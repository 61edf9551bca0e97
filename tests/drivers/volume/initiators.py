"""Initiators for tests: QEMU's own (by qemu-img and qemu-io, no guest needed), and what stands for it at the fake."""

import json
import tempfile
from pathlib import Path
from typing import Protocol

from agent.wire.volume import IscsiSource
from drivers import command
from drivers.command import CommandFailed
from drivers.volume.fake import FakeStorage


class Refused(Exception):
    """The target did not let it in."""


class Initiator(Protocol):
    """Somebody who logs in, reads and writes."""

    def write(self, source: IscsiSource, text: str) -> None: ...

    def read(self, source: IscsiSource) -> str: ...

    def size_bytes(self, source: IscsiSource) -> int: ...


class FakeInitiator:
    def __init__(self, storage: FakeStorage) -> None:
        self.storage = storage

    def write(self, source: IscsiSource, text: str) -> None:
        self._tried(lambda: self.storage.write(source, text))

    def read(self, source: IscsiSource) -> str:
        return self._tried(lambda: self.storage.read(source))

    def size_bytes(self, source: IscsiSource) -> int:
        return self._tried(lambda: self.storage.login(source)).export.size_bytes

    def _tried(self, act):
        try:
            return act()
        except Exception as error:
            raise Refused(str(error)) from error


class QemuInitiator:
    """Its own login for each call."""

    def write(self, source: IscsiSource, text: str) -> None:
        data = text.encode().ljust(512, b"\0")
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self._io(source, f"write -s {file.name} 0 512", "flush")

    def read(self, source: IscsiSource) -> str:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            self._run("dd", "-O", "raw", "bs=512", "count=1", f"if={_json(source)}", f"of={out}", source=source)
            return out.read_bytes()[:512].rstrip(b"\0").decode()

    def size_bytes(self, source: IscsiSource) -> int:
        output = self._run("info", "--output=json", _json(source), source=source)
        return int(json.loads(output.stdout)["virtual-size"])

    def _io(self, source: IscsiSource, *commands: str) -> None:
        words = [word for each in commands for word in ("-c", each)]
        said = _tried(["qemu-io", "--object", _secret(source), *words, _json(source)])
        if b"failed" in said.stdout or b"error" in said.stdout.lower():
            raise Refused(said.text)

    def _run(self, verb: str, *arguments: str, source: IscsiSource) -> command.Output:
        return _tried(["qemu-img", verb, "--object", _secret(source), *arguments])


def _tried(argv: list[str]) -> command.Output:
    try:
        return command.run(argv, timeout_s=60)
    except CommandFailed as error:
        raise Refused(str(error)) from error


def _secret(source: IscsiSource) -> str:
    return f"secret,id=chap,data={source.chap.secret or 'none'}"


def image_options(source: IscsiSource) -> dict[str, object]:
    """How QEMU is told of a volume."""
    account = {"user": source.chap.user, "password-secret": "chap"} if source.chap.user else {}
    return {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": f"{source.host}:{source.port}",
        "target": source.iqn,
        "lun": source.lun,
        "initiator-name": source.initiator,
        **account,
    }


def _json(source: IscsiSource) -> str:
    return "json:" + json.dumps({"driver": "raw", "file": image_options(source)})
