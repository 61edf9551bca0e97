"""The verdict on a run of Tempest: nothing unexpected goes unnoticed."""

from tests.conformance.judge import outcomes_in, own_lists
from tests.conformance.verdict import Finding, Kind, Lists, Outcome, faults, findings, judged, lines

LISTS = Lists(
    include=lines("^api\\.\n"),
    expected=lines("# A comment.\n\nabsent  # not here yet\n"),
    accidental=lines("test_absent_lucky  # 404 is what it wants\n"),
)


def kinds(names: list[str], *outcomes: tuple[str, str]) -> list[Kind]:
    found = findings(names, [Outcome(name, how) for name, how in outcomes], LISTS)
    return [one.kind for one in found]


def test_only_what_is_included_is_judged() -> None:
    assert judged(["api.a.C.test_a[id-1]", "scenario.test_b"], LISTS) == ["api.a.C.test_a[id-1]"]


def test_a_test_passes_or_fails_under_its_name_without_tags() -> None:
    assert kinds(["api.C.test_a[id-1,smoke]"], ("api.C.test_a", "ok")) == [Kind.PASSED]
    assert kinds(["api.C.test_a[id-1,smoke]"], ("api.C.test_a", "FAILED")) == [Kind.FAILED]


def test_what_a_line_names_may_fail_or_be_skipped_but_not_pass() -> None:
    assert kinds(["api.C.test_absent"], ("api.C.test_absent", "FAILED")) == [Kind.EXPECTED]
    assert kinds(["api.C.test_absent"], ("api.C.test_absent", "SKIPPED")) == [Kind.SKIPPED]
    assert kinds(["api.C.test_absent"], ("api.C.test_absent", "ok")) == [Kind.SURPRISE]


def test_an_accident_passes_and_must_go_on_passing() -> None:
    assert kinds(["api.C.test_absent_lucky"], ("api.C.test_absent_lucky", "ok")) == [Kind.ACCIDENTAL]
    assert kinds(["api.C.test_absent_lucky"], ("api.C.test_absent_lucky", "FAILED")) == [Kind.SURPRISE]


def test_a_skip_that_no_line_explains_is_a_failure() -> None:
    assert findings(["api.C.test_a"], [Outcome("api.C.test_a", "SKIPPED", "tags not enabled")], LISTS) == [
        Finding("api.C.test_a", Kind.FAILED, "skipped, and no line of expected.txt says why: tags not enabled")
    ]


def test_a_test_that_nobody_heard_of_again_is_a_failure_even_if_it_may_fail() -> None:
    assert kinds(["api.C.test_a", "api.C.test_absent"], ("api.C.test_absent", "FAILED")) == [
        Kind.FAILED,
        Kind.EXPECTED,
    ]
    assert kinds(["api.C.test_absent"]) == [Kind.FAILED]


def test_the_set_up_of_a_class_stands_for_all_its_tests() -> None:
    names = ["api.C.test_a", "api.C.test_absent", "api.CD.test_b"]
    ran = [("setUpClass (api.C)", "FAILED"), ("api.CD.test_b", "ok")]
    assert kinds(names, *ran) == [Kind.FAILED, Kind.EXPECTED, Kind.PASSED]


def test_a_failing_tear_down_is_expected_only_where_nothing_passes() -> None:
    torn = ("tearDownClass (api.C)", "FAILED")
    assert kinds(["api.C.test_absent"], ("api.C.test_absent", "FAILED"), torn) == [Kind.EXPECTED, Kind.EXPECTED]
    assert kinds(["api.C.test_a"], ("api.C.test_a", "ok"), torn) == [Kind.PASSED, Kind.FAILED]


def test_a_failure_under_a_foreign_name_is_a_failure() -> None:
    assert kinds(["api.C.test_a"], ("api.C.test_a", "ok"), ("process-returncode", "FAILED"))[1:] == [Kind.FAILED]


def test_a_line_without_a_test_or_a_reason_is_a_fault() -> None:
    lists = Lists(include=LISTS.include, expected=lines("absent\nnowhere  # why\n"), accidental=())
    assert faults(["api.C.test_absent", "scenario.nowhere"], lists) == [
        "has no reason: absent",
        "matches no test: nowhere",
    ]


def test_outcomes_are_read_from_what_tempest_prints() -> None:
    text = """{0} tempest.api.C.test_a [0.012s] ... ok
    {0} setUpClass (tempest.api.D) ... SKIPPED: indented, of a captured log
{1} setUpClass (tempest.api.E) [0.000000s] ... FAILED
{1} tempest.api.F.test_b ... SKIPPED: Pause is not available.
 - Passed: 1
"""
    assert outcomes_in(text) == [
        Outcome("tempest.api.C.test_a", "ok"),
        Outcome("setUpClass (tempest.api.E)", "FAILED"),
        Outcome("tempest.api.F.test_b", "SKIPPED", "Pause is not available."),
    ]


def test_every_line_of_our_own_lists_has_a_reason() -> None:
    lists = own_lists()
    assert [line for line in (*lists.expected, *lists.accidental) if not line.reason] == []
