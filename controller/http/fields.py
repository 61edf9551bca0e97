"""Views as tables: which keys an object shows, from where, in which microversions. One loop renders them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, TypeAlias

from controller.http.op import Version

Getter: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One key. `getter` is a function of the object, or the name of its attribute; the window is inclusive."""

    key: str
    getter: Getter | str
    since: Version | None = None
    until: Version | None = None


_LIVE: Final[dict[tuple[int, Version], tuple[Sequence[Field], tuple[tuple[str, Getter], ...]]]] = {}
"""By identity of the table (a module's constant; kept here so that its id is never another's) and version."""


def render(fields: Sequence[Field], obj: Any, version: Version = (0, 0)) -> dict[str, Any]:
    """The view of one object in one version. A field outside its window is absent, not null."""
    key = (id(fields), version)
    live = _LIVE.get(key)
    if live is None:
        live = _LIVE[key] = (fields, tuple((f.key, _getter(f)) for f in fields if _is_live(f, version)))
    return {name: getter(obj) for name, getter in live[1]}


def _is_live(field: Field, version: Version) -> bool:
    return (field.since is None or version >= field.since) and (field.until is None or version <= field.until)


def _getter(field: Field) -> Getter:
    return attrgetter(field.getter) if isinstance(field.getter, str) else field.getter
