"""Request bodies: read within bounds, refused when they are not plain JSON, decoded into strict structs.

What msgspec lets pass and we do not: a key that occurs twice (which of the two did the policy check see?), NUL in
a string (PostgreSQL cannot store it), and nesting that no request of these APIs needs.
"""

import asyncio
import json
import re
from typing import Any, Final

import msgspec
from starlette.types import Receive

from controller.errors import Invalid, TooLarge, UnsupportedMedia
from controller.http.trie import Route


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of request structs, `class ServerCreate(Body, frozen=True)`: an unknown key is a 400."""


class ClientGone(Exception):
    """The client hung up while it was sending."""


READ_S: Final = 60.0
"""In which a whole body must arrive; streams have no such bound. Longer: a slow sender holds memory for longer."""

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""One that never ends reaches to the end: looked for anew from each of its escaped quotes, a megabyte takes an hour."""
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_PLACE: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?$", re.DOTALL)


def check_media(route: Route, content_type: str | None) -> None:
    """Raises UnsupportedMedia when the row does not take what the client says it sends."""
    if route.decode is None and not route.op.streams and route.op.action is None:
        return
    media = (content_type or "").partition(";")[0].strip().lower()
    if media in route.op.media or (not media and not route.op.streams and "application/json" in route.op.media):
        return
    raise UnsupportedMedia(f"This needs Content-Type {' or '.join(route.op.media)}, not {media or 'none'}.")


async def read(receive: Receive, content_length: str | None, limit_bytes: int) -> bytes:
    """The whole body. Raises TooLarge, before reading it where the client is honest about its size; Invalid if slow."""
    if content_length is not None and content_length.isdecimal() and int(content_length) > limit_bytes:
        raise TooLarge(f"The body is larger than {limit_bytes} bytes.")
    try:
        async with asyncio.timeout(READ_S):
            return await _read(receive, limit_bytes)
    except TimeoutError as error:
        raise Invalid(f"The body did not arrive within {READ_S:.0f} s.") from error


async def _read(receive: Receive, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge(f"The body is larger than {limit_bytes} bytes.")
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def decode(route: Route, data: bytes, depth_max: int) -> Any:
    """The row's struct. Raises Invalid with a sentence that names the field."""
    assert route.decode is not None, "only rows with a body type decode"
    if not data:
        raise Invalid("The request needs a JSON body.")
    check_plain(data, depth_max)
    return _convert(route.decode, data)


_ACTION_DECODER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def action_of(data: bytes, depth_max: int) -> tuple[str, bytes]:
    """The single key of an action's body, and the JSON below it."""
    if not data:
        raise Invalid("The request needs a JSON body.")
    check_plain(data, depth_max)
    body = _convert(_ACTION_DECODER.decode, data)
    if len(body) != 1:
        raise Invalid("The body must hold exactly one action.")
    ((name, raw),) = body.items()
    return name, bytes(raw)


def decode_action(route: Route, raw: bytes) -> Any:
    """What stands below the action's key, as the row's type."""
    return None if route.decode is None else _convert(route.decode, raw, f"{route.op.action}.")


def check_plain(data: bytes, depth_max: int) -> None:
    """Raises Invalid for JSON that is too deep, has duplicate keys or NUL. Malformed JSON may pass: it fails next."""
    if data.count(b"{") + data.count(b"[") > depth_max and _is_deeper(data, depth_max):
        raise Invalid(f"The body is nested deeper than {depth_max}.")
    if _NUL.search(data):
        raise Invalid("The body has a NUL character in a string.")
    try:
        json.loads(data, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The body is not JSON: {error}.") from error


def _is_deeper(data: bytes, depth_max: int) -> bool:
    """Peel the innermost pairs, `depth_max` times; all in C, so that a megabyte of brackets costs milliseconds."""
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    for _ in range(depth_max):
        peeled = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(peeled) == len(brackets):
            break
        brackets = peeled
    return bool(brackets)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Invalid(f"The key '{twice}' occurs twice.")


def _convert(decoder: Any, data: bytes, below: str = "") -> Any:
    try:
        return decoder(data)
    except UnicodeDecodeError as error:
        raise Invalid("The body is not UTF-8.") from error
    except RecursionError as error:
        raise Invalid("The body is nested too deep.") from error
    except msgspec.DecodeError as error:
        raise Invalid(explained(str(error), below)) from error


def explained(text: str, below: str = "") -> str:
    """msgspec's message as a sentence for the user: the field first."""
    match = _PLACE.match(text)
    assert match is not None, "the pattern matches any text"
    where = (below + (match["where"] or "")).rstrip(".")
    what = match["what"].replace("`", "'")
    if "contains unknown field" in what:
        what = "Unrecognized attribute(s) " + what.rpartition("unknown field ")[2]
    elif "missing required field" in what:
        what = "Missing required attribute " + what.rpartition("required field ")[2]
    return f"Invalid input for '{where}': {what}." if where else f"{what}."
