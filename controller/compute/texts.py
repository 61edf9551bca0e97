"""What texts users may give: names, descriptions, tags, metadata. In Nova's rules, which clients and tests know.

Lengths are in characters. Names are printable (Unicode, four-byte characters too), without space at either end.
"""

import base64
import binascii
import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from controller.errors import Invalid

NAME_MAX: Final = 255
TAG_MAX: Final = 60
TAGS_MAX: Final = 50
USER_DATA_MAX: Final = 65535
"""Base64 characters."""

_METADATA_KEY: Final = re.compile(r"[a-zA-Z0-9-_:. ]{1,255}")
_HOSTNAME_SPACE: Final = re.compile(r"[ _\.]")
_HOSTNAME_OTHER: Final = re.compile(r"[^a-z0-9-]+")
_TRUE: Final = frozenset({"true", "1", "on", "yes"})
_FALSE: Final = frozenset({"false", "0", "off", "no"})
UUID: Final = r"^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$"
_UUID: Final = re.compile(UUID)


def is_printable(text: str) -> bool:
    """No control characters, no line breaks, no lone surrogates; spaces may be any of Unicode's."""
    return all((kind := unicodedata.category(char))[0] != "C" and kind not in ("Zl", "Zp") for char in text)


def name(value: str, field: str = "name") -> str:
    """A name: 1 to 255 printable characters, no space at the ends."""
    if not 1 <= len(value) <= NAME_MAX:
        raise Invalid(f"Invalid input for field/attribute {field}: it must have 1 to {NAME_MAX} characters.")
    if value != value.strip() or not is_printable(value):
        raise Invalid(
            f"Invalid input for field/attribute {field}: printable characters only. "
            "Can not start or end with whitespace."
        )
    return value


def description(value: str | None, length_max: int = NAME_MAX) -> str | None:
    """A description: printable, may be empty or null."""
    if value is not None and (len(value) > length_max or not is_printable(value)):
        raise Invalid(f"Invalid input for field/attribute description: at most {length_max} characters, all printable.")
    return value


def tag(value: str) -> str:
    """A tag: 1 to 60 characters, no slash, no comma."""
    if not 1 <= len(value) <= TAG_MAX:
        raise Invalid(f"Tag '{value}' must have 1 to {TAG_MAX} characters.")
    if "/" in value or "," in value:
        raise Invalid(f"Tag '{value}' must not contain characters ',' and '/'.")
    return value


def tags(values: Iterable[str]) -> tuple[str, ...]:
    """At most 50 tags, each once."""
    found = tuple(dict.fromkeys(tag(value) for value in values))
    if len(found) > TAGS_MAX:
        raise Invalid(f"The number of tags exceeded the per-server limit {TAGS_MAX}")
    return found


def metadata(values: Mapping[str, str]) -> dict[str, str]:
    """Metadata: short keys of a small alphabet, values up to 255 characters."""
    for key, value in values.items():
        if not _METADATA_KEY.fullmatch(key):
            raise Invalid(f"Invalid input for field/attribute metadata: '{key}' is not a legal key.")
        if len(value) > NAME_MAX:
            raise Invalid(f"Invalid input for field/attribute {key}: the value has more than {NAME_MAX} characters.")
    return dict(values)


def boolean(value: bool | str, field: str) -> bool:
    """Nova's booleans: JSON's, or one of a few words."""
    if isinstance(value, bool):
        return value
    word = value.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Invalid(f"Invalid input for field/attribute {field}. Value: {value}. It is not a boolean.")


def number(value: int | str, field: str, least: int, most: int = 0x7FFFFFFF) -> int:
    """Nova's integers: JSON's, or their digits as a string."""
    digits = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]{1,20}", digits) or not least <= int(digits) <= most:
        raise Invalid(
            f"Invalid input for field/attribute {field}. Value: {value}. It must be an integer from {least} to {most}."
        )
    return int(digits)


def uuid(value: str, field: str) -> str:
    """A UUID in its dashed, lower-case form."""
    if not _UUID.fullmatch(value):
        raise Invalid(f"Invalid input for field/attribute {field}. Value: {value}. '{value}' is not a 'uuid'")
    plain = value.replace("-", "").lower()
    return f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"


def is_uuid(value: str) -> bool:
    """Whether it has the form of a UUID."""
    return _UUID.fullmatch(value) is not None


def address(value: str, field: str, version: int | None = None) -> str:
    """An IP address in its canonical form."""
    try:
        found = ipaddress.ip_address(value)
    except ValueError as error:
        raise Invalid(f"Invalid input for field/attribute {field}. Value: {value}. It is not an IP address.") from error
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id is not None:
        raise Invalid(f"Invalid input for field/attribute {field}. Value: {value}. No address of ours has a scope.")
    if version is not None and found.version != version:
        raise Invalid(f"Invalid input for field/attribute {field}. Value: {value}. It is not of IPv{version}.")
    return str(found)


def user_data(value: str) -> str:
    """User data: base64, at most 64 KiB of it."""
    if len(value) > USER_DATA_MAX:
        raise Invalid(f"Invalid input for field/attribute user_data: it is longer than {USER_DATA_MAX} characters.")
    try:
        base64.b64decode("".join(value.encode("ascii").decode().split()), validate=True)
    except (binascii.Error, ValueError) as error:  # Space beyond ASCII is none to whoever decodes it later.
        raise Invalid("User data needs to be valid base 64.") from error
    return value


def hostname_of(server_name: str, server_id: str) -> str:
    """What the guest is called: the name with everything that a host's name cannot have removed, at most 63 long."""
    spaced = _HOSTNAME_SPACE.sub("-", server_name[:63])
    found = _HOSTNAME_OTHER.sub("", spaced.lower()).strip("-.")
    return found or f"Server-{server_id}"
