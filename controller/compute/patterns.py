"""Regular expressions that users may filter lists with, made harmless.

Nova hands them to its database. A pattern can be made to run for hours on a short text, so here only those pass
that cannot: no back references, no look-around, no repetition inside a repetition, and few repetitions at all.
What is left costs a polynomial of low degree in 255 characters. A pattern without any special character is the
common case, and becomes a plain search in SQL.
"""

import re
import re._constants as codes  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any, Final

from controller.errors import Invalid

LENGTH_MAX: Final = 255
REPEATS_MAX: Final = 2
"""Unbounded repetitions of a pattern, not counting `.*` at its ends, which mean nothing to a search."""

BOUND_MAX: Final = 255
_PLAIN: Final = re.compile(r"[\w \-@:/=,<>~#%&!;\"']*")
_REPEATS: Final = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)
_HARMLESS: Final = (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN, codes.AT, codes.CATEGORY, codes.RANGE)


def is_plain(pattern: str) -> bool:
    """Whether it holds no special character, so that it is a part of the text that is looked for."""
    return _PLAIN.fullmatch(pattern) is not None


def compiled(pattern: str, field: str) -> re.Pattern[str]:
    """The pattern, to be searched for. Raises Invalid for one that is none, or could run away."""
    if len(pattern) > LENGTH_MAX:
        raise Invalid(f"Invalid input for query parameters {field}: the pattern is too long.")
    try:
        tree = parser.parse(pattern)
        found = re.compile(_without_ends(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise Invalid(
            f"Invalid input for query parameters {field}. Value: {pattern}. '{pattern}' is not a 'regex'"
        ) from (error)
    if _repeats(parser.parse(_without_ends(pattern)), is_inside=False) > REPEATS_MAX or not _is_allowed(tree):
        raise Invalid(f"Invalid input for query parameters {field}: the pattern '{pattern}' is too complex.")
    return found


def _without_ends(pattern: str) -> str:
    """The same search without `.*` at the ends."""
    shorter = re.sub(r"^(\.\*)+", "", pattern)
    return re.sub(r"(?<!\\)(\.\*)+$", "", shorter)


def _is_allowed(tree: Any) -> bool:
    return all(_allows(code, argument) for code, argument in tree)


def _allows(code: Any, argument: Any) -> bool:
    if code in _HARMLESS:
        return True
    if code is codes.SUBPATTERN:
        return _is_allowed(argument[3])
    if code is codes.BRANCH:
        return all(_is_allowed(branch) for branch in argument[1])
    return code in _REPEATS and _is_allowed(argument[2])


def _repeats(tree: Any, *, is_inside: bool) -> int:
    """How many repetitions; a repetition inside another counts as too many."""
    count = 0
    for code, argument in tree:
        if code in _REPEATS:
            _, most, inner = argument
            if most > 1 and (is_inside or (most is not codes.MAXREPEAT and most > BOUND_MAX)):
                return REPEATS_MAX + 1
            count += (most > 1) + _repeats(inner, is_inside=most > 1)
        elif code is codes.SUBPATTERN:
            count += _repeats(argument[3], is_inside=is_inside)
        elif code is codes.BRANCH:
            count += sum(_repeats(branch, is_inside=is_inside) for branch in argument[1])
    return count
