"""Regular expressions that users may filter lists with, made harmless.

Nova hands them to its database. A pattern can be made to run for hours on a short text, and while Python's engine
runs nothing else of the process does. So here only those pass that cannot: no back references, no look-around, no
repetition of anything that leaves a choice, and a bound on the ways in which the whole can be tried. A pattern without
any special character is the common case, and becomes a plain search in SQL.
"""

import re
import re._constants as codes  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
from typing import Any, Final

from controller.errors import Invalid

LENGTH_MAX: Final = 255
WAYS_MAX: Final = 16 * LENGTH_MAX**2
"""In which a pattern may be tried on one text: two unbounded repetitions behind `^`, or one after any start, and a few
options. That is some milliseconds at worst. `.*` at the ends does not count: it means nothing to a search."""

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
    searched = parser.parse(_without_ends(pattern))
    if not _is_allowed(tree) or _ways(searched) * (1 if _is_anchored(searched) else LENGTH_MAX) > WAYS_MAX:
        raise Invalid(
            f"Invalid input for query parameters {field}: the pattern '{pattern}' is too complex; "
            "repeat less, or begin with ^."
        )
    return found


def _without_ends(pattern: str) -> str:
    """The same search without `.*` at the ends."""
    shorter = re.sub(r"^\^?(\.\*)+", "", pattern)
    return re.sub(r"(?<!\\)(\.\*)+\$?$", "", shorter)


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


def _is_anchored(tree: Any) -> bool:
    return len(tree) > 0 and tree[0] in ((codes.AT, codes.AT_BEGINNING), (codes.AT, codes.AT_BEGINNING_STRING))


def _ways(tree: Any) -> int:
    """In how many ways a text can be tried against it, at most; too many for a repetition of what has more than one."""
    ways = 1
    for code, argument in tree:
        if code in _REPEATS:
            ways *= _ways_repeated(*argument)
        elif code is codes.SUBPATTERN:
            ways *= _ways(argument[3])
        elif code is codes.BRANCH:
            ways *= sum(_ways(branch) for branch in argument[1])
    return ways


def _ways_repeated(least: int, most: Any, inner: Any) -> int:
    if most <= 1:
        return int(most) - least + _ways(inner)
    if _ways(inner) > 1 or _has_repeat(inner) or (most is not codes.MAXREPEAT and most > BOUND_MAX):
        return WAYS_MAX + 1
    return min(int(most), LENGTH_MAX) - least + 1


def _has_repeat(tree: Any) -> bool:
    """One that repeats nothing leaves no choice, and can still be nested until it takes for ever."""
    return any(code in _REPEATS or (code is codes.SUBPATTERN and _has_repeat(argument[3])) for code, argument in tree)
