"""JSON patch on images: what a list of operations makes of the columns and properties of one image."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from controller.errors import Conflict, Forbidden, Invalid
from controller.image.api import bodies
from controller.image.api.bodies import BASE, PatchStep
from controller.image.model import Image

_NEW: Final = "application/openstack-images-v2.1-json-patch"
_OLD: Final = "application/openstack-images-v2.0-json-patch"
MEDIA: Final = (_NEW, _OLD)
"""`{"op": "replace", "path": "/name", …}`, and `{"replace": "/name", …}` as in a draft of the standard."""


class Operation(msgspec.Struct, frozen=True):
    """What one step does, whichever way it was written."""

    op: str
    path: str
    value: Any


def operations(media: str, steps: Sequence[PatchStep]) -> list[Operation]:
    """The steps as operations. Raises Invalid."""
    read = _old if media.partition(";")[0].strip().lower() == _OLD else _new
    return [read(step) for step in steps]


def _new(step: PatchStep) -> Operation:
    if isinstance(step.op, msgspec.UnsetType) or isinstance(step.path, msgspec.UnsetType):
        raise Invalid("An operation needs the keys 'op' and 'path'.")
    if any(isinstance(one, str) for one in (step.add, step.replace, step.remove)):
        raise Invalid(f"An operation of {_NEW} says what it does in 'op'.")
    return Operation(step.op, step.path, step.value)


def _old(step: PatchStep) -> Operation:
    verbs = (("add", step.add), ("replace", step.replace), ("remove", step.remove))
    named = [(op, path) for op, path in verbs if isinstance(path, str)]
    if len(named) != 1 or isinstance(step.op, str) or isinstance(step.path, str):
        raise Invalid(f"An operation of {_OLD} has exactly one of the keys 'add', 'replace' and 'remove'.")
    return Operation(*named[0], step.value)


def apply(found: Image, operations: Sequence[Operation], *, may_give: bool) -> dict[str, Any]:
    """The columns to write. `may_give`: to another owner. Raises Invalid, Forbidden, Conflict (what is not there)."""
    columns: dict[str, Any] = {}
    properties = dict(found.properties)
    for one in operations:
        key = _key(one.path)
        if key == "owner" and may_give and one.op == "replace":
            columns[key] = bodies.owner(_value(one))
        elif key in bodies.READ_ONLY or key == "id":
            raise Forbidden(f"Attribute '{key}' is read-only.")
        elif key in BASE:
            _column(columns, key, one)
        else:
            _property(properties, key, one)
    if properties != found.properties:
        bodies.bounded(properties)
        columns["properties"] = properties
    return columns


def _key(path: str) -> str:
    if not path.startswith("/") or "/" in path[1:]:
        raise Invalid(f"Invalid JSON pointer for this resource: '{path}'.")
    key = path[1:]
    if "~" in key.replace("~0", "").replace("~1", ""):
        raise Invalid(f"Pointer '{path}' contains '~' not part of a recognized escape sequence.")
    return bodies.property_key(key.replace("~1", "/").replace("~0", "~"))


def _column(columns: dict[str, Any], key: str, one: Operation) -> None:
    if one.op == "remove":
        raise Forbidden(f"Property {key} may not be removed.")
    columns[key] = BASE[key](key, _value(one))


def _property(properties: dict[str, str], key: str, one: Operation) -> None:
    if one.op != "add" and key not in properties:
        raise Conflict(f"Property {key} does not exist.")
    if one.op == "remove":
        del properties[key]
    else:
        properties[key] = bodies.property_value(key, _value(one))


def _value(one: Operation) -> Any:
    if one.value is msgspec.UNSET:
        raise Invalid(f"Operation '{one.op}' needs a value.")
    return one.value
