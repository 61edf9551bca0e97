"""What a run means: every test either passes, or a line of `expected.txt` says why it does not.

Pure: names, outcomes and lines in, findings out. Three things are as wrong as a failure: a test that passes although a
line says that it cannot (the line would hide its next failure), a test that Tempest skips without a line (a feature is
advertised no more), and a test that nobody heard of again (a worker died).
"""

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_CLASS = re.compile(r"^(?P<what>setUpClass|tearDownClass) \((?P<class>\S+)\)$")


@dataclass(frozen=True)
class Line:
    """One line of a list: a regular expression and the reason."""

    pattern: re.Pattern[str]
    reason: str

    def matches(self, name: str) -> bool:
        return self.pattern.search(name) is not None


@dataclass(frozen=True)
class Lists:
    """`include.txt`, `expected.txt`, `accidental.txt`."""

    include: Sequence[Line]
    expected: Sequence[Line]
    accidental: Sequence[Line]


@dataclass(frozen=True)
class Outcome:
    """How one test ended: ok, FAILED or SKIPPED. A class whose set-up failed is one, named `setUpClass (…)`."""

    name: str
    outcome: str
    reason: str = ""


class Kind(enum.Enum):
    """What a test's outcome means."""

    PASSED = "passed"
    SKIPPED = "skipped"  # By Tempest, and a line says why.
    EXPECTED = "expected"  # It fails, and a line says why.
    ACCIDENTAL = "accidental"  # It passes because what is absent answers 404, which is what it wants.
    FAILED = "failed"  # No line says that it may.
    SURPRISE = "surprise"  # It passes, and a line says that it cannot.


UNEXPECTED = (Kind.FAILED, Kind.SURPRISE)


@dataclass(frozen=True)
class Finding:
    """One test, what became of it, and what to do about it if that was not expected."""

    name: str
    kind: Kind
    note: str = ""


def lines(text: str) -> list[Line]:
    """A list from its text; blank lines and comments are left out."""
    found = []
    for one in text.splitlines():
        pattern, _, reason = one.partition("#")
        if pattern.strip():
            found.append(Line(re.compile(pattern.strip()), reason.strip()))
    return found


def bare(name: str) -> str:
    """A listed name without Tempest's tags, as outcomes have it."""
    return name.partition("[")[0]


def judged(every: Iterable[str], lists: Lists) -> list[str]:
    """What of all tests is run, expected failures too."""
    return [name for name in every if any(line.matches(name) for line in lists.include)]


def faults(every: Iterable[str], lists: Lists) -> list[str]:
    """What is wrong with the lists themselves: lines that no test matches, lines without a reason."""
    names = judged(every, lists)
    wrong = []
    for line in (*lists.expected, *lists.accidental):
        if not line.reason:
            wrong.append(f"has no reason: {line.pattern.pattern}")
        if not any(line.matches(name) for name in names):
            wrong.append(f"matches no test: {line.pattern.pattern}")
    return wrong


def findings(names: Sequence[str], outcomes: Iterable[Outcome], lists: Lists) -> list[Finding]:
    """One finding a test of `names`, and one for each outcome that is wrong and is no test's."""
    own: dict[str, Outcome] = {}
    classes: dict[str, Outcome] = {}
    others: list[Outcome] = []
    known = {bare(name) for name in names}
    for one in outcomes:
        match = _CLASS.match(one.name)
        if one.name in known:
            own[one.name] = one
        elif match is not None and match["what"] == "setUpClass":
            classes[match["class"]] = one
        else:
            others.append(one)
    found = [_finding(name, own, classes, lists) for name in names]
    return found + [_other(one, found) for one in others if one.outcome == "FAILED"]


def _finding(name: str, own: dict[str, Outcome], classes: dict[str, Outcome], lists: Lists) -> Finding:
    short = bare(name)
    outcome = own.get(short) or classes.get(short.rpartition(".")[0])
    line = next((line for line in lists.expected if line.matches(name)), None)
    is_accidental = any(one.matches(name) for one in lists.accidental)
    if outcome is None:
        return Finding(short, Kind.FAILED, "was not heard of again")
    if line is None:
        return _unlisted(short, outcome)
    if outcome.outcome == "ok":
        if is_accidental:
            return Finding(short, Kind.ACCIDENTAL)
        return Finding(short, Kind.SURPRISE, f"expected to fail: {line.reason}")
    if is_accidental:
        return Finding(short, Kind.SURPRISE, "no accident any more: accidental.txt names it, and it does not pass")
    return Finding(short, Kind.SKIPPED if outcome.outcome == "SKIPPED" else Kind.EXPECTED, line.reason)


def _unlisted(short: str, outcome: Outcome) -> Finding:
    if outcome.outcome == "ok":
        return Finding(short, Kind.PASSED)
    if outcome.outcome == "SKIPPED":
        return Finding(short, Kind.FAILED, f"skipped, and no line of expected.txt says why: {outcome.reason}")
    return Finding(short, Kind.FAILED, "" if outcome.name == short else outcome.name.partition(" ")[0])


def _other(outcome: Outcome, found: Sequence[Finding]) -> Finding:
    """A class that could not be torn down, or a worker that ended: expected only where nothing of the class passes."""
    match = _CLASS.match(outcome.name)
    mates = [] if match is None else [one for one in found if one.name.rpartition(".")[0] == match["class"]]
    is_expected = bool(mates) and all(one.kind in (Kind.EXPECTED, Kind.SKIPPED) for one in mates)
    return Finding(outcome.name, Kind.EXPECTED if is_expected else Kind.FAILED)
