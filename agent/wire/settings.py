"""Settings of one role: a msgspec struct of sections, from one TOML file and the environment, nothing else.

`HOSTLER_<SECTION>_<KEY>` overrides the file. An unknown key is an error that names it. Secrets never live
here; they are 0600 files beside. Every key has a default that works.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


class BadSettings(Exception):
    """A setting that cannot be used: says which, where it came from, and what would be right."""


def load(kind: type[S], path: Path | None, environ: Mapping[str, str] = os.environ) -> S:
    """The settings in `path` (if it exists) under the environment. Raises BadSettings."""
    raw: dict[str, Any] = {}
    if path is not None and path.exists():
        try:
            raw = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as error:
            raise BadSettings(f"{path}: {error}") from error
    for section in msgspec.structs.fields(kind):
        for key in msgspec.structs.fields(section.type):
            name = f"HOSTLER_{section.name}_{key.name}".upper()
            if name in environ:
                raw.setdefault(section.name, {})[key.name] = _from_text(environ[name], key.type)
    try:
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{path or 'environment'}: {error}") from error


def _from_text(text: str, kind: Any) -> Any:
    """Lists and tables are TOML values in the environment too; anything else is plain text."""
    if getattr(kind, "__origin__", kind) in (dict, list, tuple):
        return tomllib.loads(f"value = {text}")["value"]
    return text
