"""The smallest body that a row's type accepts, made from the type: what a caller sends who has never seen an object."""

import re
import types
import typing
from typing import Any

import msgspec

TEXTS = ("x", "11111111-2222-4333-8444-555555555555", "10.9.8.0/24", "10.9.8.7", "default", "1", "aa:bb:cc:dd:ee:ff")


def value(kind: Any) -> Any:
    """A JSON value of that type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _constrained(parts[0], [part for part in parts[1:] if isinstance(part, msgspec.Meta)])
    if origin in (typing.Union, types.UnionType):
        wanted = [part for part in parts if part not in (type(None), msgspec.UnsetType)]
        return value(wanted[0]) if wanted else None
    if origin is typing.Literal:
        return parts[0]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.encode_name: value(field.type) for field in msgspec.structs.fields(kind) if field.required}
    if origin in (list, tuple, set, frozenset) or kind in (list, tuple):
        return []
    if origin is dict or kind is dict:
        return {}
    plain = {str: "x", int: 1, float: 1.0, bool: True, type(None): None}
    if kind in plain:
        return plain[kind]
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return next(iter(kind.__members__.values())).value
    return {}


def _constrained(kind: Any, metas: list[msgspec.Meta]) -> Any:
    found = value(kind)
    for meta in metas:
        if isinstance(found, str):
            texts = [text.ljust(meta.min_length or 0, "x") for text in TEXTS]
            found = next(text for text in texts if meta.pattern is None or re.search(meta.pattern, text))
        elif isinstance(found, int | float) and not isinstance(found, bool):
            found = max(found, meta.ge or found)
        elif isinstance(found, list) and meta.min_length:
            found = [value(typing.get_args(kind)[0])] * meta.min_length
    return found
