"""Sample messages of every type on the wire, derived from the types themselves: nothing to forget when one changes."""

from typing import Any

import msgspec
from msgspec import inspect


def full(kind: Any) -> Any:
    """An instance with every field set, none to its default."""
    return msgspec.convert(_value(inspect.type_info(kind), "value", everything=True), kind)


def minimal(kind: Any) -> Any:
    """What an old sender says: required fields only, as JSON-able data."""
    return _value(inspect.type_info(kind), "value", everything=False)


def _value(kind: inspect.Type, name: str, *, everything: bool) -> Any:
    if isinstance(kind, inspect.StructType):
        return _struct(kind, everything)
    if isinstance(kind, inspect.UnionType):
        present = [each for each in kind.types if not isinstance(each, inspect.NoneType | inspect.CustomType)]
        return _value(present[0], name, everything=everything)
    if isinstance(kind, inspect.EnumType):
        return list(kind.cls)[-1].value
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return [_value(kind.item_type, name, everything=everything)]
    if isinstance(kind, inspect.TupleType):
        return [_value(item, f"{name}{i}", everything=everything) for i, item in enumerate(kind.item_types)]
    if isinstance(kind, inspect.DictType):
        return {f"{name}-key": _value(kind.value_type, name, everything=everything)}
    return _plain(kind, name)


def _plain(kind: inspect.Type, name: str) -> Any:
    table: dict[type[Any], Any] = {
        inspect.StrType: f"a {name}",
        inspect.IntType: 7,
        inspect.FloatType: 1.5,
        inspect.BoolType: True,
        inspect.BytesType: "Ynl0ZXM=",
        inspect.RawType: {"any": "thing"},
    }
    return table[type(kind)]


def _struct(kind: inspect.StructType, everything: bool) -> Any:
    fields = [field for field in kind.fields if everything or field.required]
    values = {
        field.encode_name: _flipped(field, _value(field.type, field.name, everything=everything)) for field in fields
    }
    return list(values.values()) if kind.array_like else values


def _flipped(field: inspect.Field, value: Any) -> Any:
    return False if value is True and field.default is True else value
