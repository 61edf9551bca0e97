"""What texts and numbers users may give, in Cinder's rules."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controller.errors import Invalid

KEYS_MAX: Final = 255

_TRUE: Final = frozenset({"true", "1", "on", "yes", "t", "y"})
_FALSE: Final = frozenset({"false", "0", "off", "no", "f", "n"})


def name(value: str | None) -> str | None:
    """A name, without space at its ends."""
    return None if value is None else value.strip()


def first(*values: Any) -> Any:
    """The first that was given: names have two spellings."""
    return next((value for value in values if value is not None and value is not msgspec.UNSET), None)


def metadata(values: Mapping[str, str | None] | None) -> dict[str, str]:
    """Metadata: keys and values up to 255 characters."""
    found: dict[str, str] = {}
    for key, value in (values or {}).items():
        if not 1 <= len(key) <= 255 or not re.fullmatch(r"[^\x00-\x1f\x7f]*", key):
            raise Invalid(f"Invalid metadata: the key '{key[:80]}' must have 1 to 255 printable characters.")
        if value is None:
            raise Invalid(f"Invalid metadata: the value of '{key}' is null.")
        if len(value) > 255:
            raise Invalid(f"Invalid metadata: the value of '{key}' has more than 255 characters.")
        found[key] = value
    if len(found) > KEYS_MAX:
        raise Invalid(f"Invalid metadata: at most {KEYS_MAX} keys.")
    return found


def boolean(value: Any, field: str) -> bool:
    """JSON's, or one of a few words."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Invalid(f"Invalid input for field/attribute {field}. Value: {value}. It is not a boolean.")


def number(value: int | str, field: str, least: int, most: int = 0x7FFFFFFF) -> int:
    """An integer, or its digits as a string."""
    digits = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,20}", digits) or not least <= int(digits) <= most:
        raise Invalid(
            f"Invalid input for field/attribute {field}. Value: {value}. It must be an integer from {least} to {most}."
        )
    return int(digits)
