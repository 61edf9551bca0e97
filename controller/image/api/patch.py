"""JSON patch on images: what a list of operations makes of the columns and properties of one image."""

from collections.abc import Sequence
from typing import Any

import msgspec

from controller.errors import Conflict, Forbidden, Invalid
from controller.image.api import bodies
from controller.image.api.bodies import BASE, PatchOp
from controller.image.model import Image


def apply(found: Image, operations: Sequence[PatchOp]) -> dict[str, Any]:
    """The columns to write. Raises Invalid, Forbidden (read-only), Conflict (what is not there)."""
    columns: dict[str, Any] = {}
    properties = dict(found.properties)
    for one in operations:
        key = _key(one.path)
        if key in bodies.READ_ONLY or key == "id":
            raise Forbidden(f"Attribute '{key}' is read-only.")
        if key in BASE:
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


def _column(columns: dict[str, Any], key: str, one: PatchOp) -> None:
    if one.op == "remove":
        raise Forbidden(f"Property {key} may not be removed.")
    columns[key] = BASE[key](key, _value(one))


def _property(properties: dict[str, str], key: str, one: PatchOp) -> None:
    if one.op != "add" and key not in properties:
        raise Conflict(f"Property {key} does not exist.")
    if one.op == "remove":
        del properties[key]
    else:
        properties[key] = bodies.property_value(key, _value(one))


def _value(one: PatchOp) -> Any:
    if one.value is msgspec.UNSET:
        raise Invalid(f"Operation '{one.op}' needs a value.")
    return one.value
