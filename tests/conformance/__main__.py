"""`python -m tests.conformance`: what Tempest and the SDK say of a cloud with fake hosts.

python -m tests.conformance                 every test of include.txt
python -m tests.conformance --core          only those of core.txt: a minute or two
python -m tests.conformance --regex R       only those that match
python -m tests.conformance --keep          leave the cloud running, and use one that was left running

Status 0: every test passed or failed as the lists say. 1: one did not. 2: nothing could be judged.
"""

import argparse
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

from controller.cli import clouds
from tests.conformance import ending, judge, settings
from tests.conformance.cloud import NotMade, running_cloud
from tests.conformance.judge import NotJudged
from tests.conformance.verdict import UNEXPECTED, Finding, Kind, Outcome, faults, findings, judged, lines

TIMEOUT_S = 1200
"""All of Tempest takes under three minutes on two quiet cores; on busy ones, several times that."""
SERVICES = ("identity", "image", "network", "compute", "volume")
SESSION = "openstacksdk"
NOT_JUDGED = 2


def main() -> int:
    """Judge; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", action="store_true", help="only the tests of core.txt, after the session")
    parser.add_argument("--regex", default="", help="only tests that match, without the session")
    parser.add_argument("--keep", action="store_true", help="leave the cloud running for the next run")
    options = parser.parse_args()
    try:
        with ending.tidy(), ending.alone("conformance"):
            return _judge(is_core=options.core, regex=options.regex, is_kept=options.keep)
    except (NotJudged, NotMade, ending.NotAlone) as error:
        print(f"not judged: {error}", file=sys.stderr)
        return NOT_JUDGED


def _judge(*, is_core: bool, regex: str, is_kept: bool) -> int:
    judge.install()
    began = time.monotonic()
    lists = judge.own_lists()
    with running_cloud(judge.CLOUD_LOGS, is_kept=is_kept) as cloud:
        judge.new_workspace(lambda workspace: settings.write(workspace, cloud))
        every = judge.every_test()
        names = [name for name in _chosen(judged(every, lists), is_core) if re.search(regex, name)]
        if not names:
            raise NotJudged("no test is chosen")
        ours = [] if regex else judge.session(clouds.path(cloud.trial))
        outcomes = judge.run(names, TIMEOUT_S)
        ours += judge.server_errors()
    found = [*_plain(ours), *findings(names, outcomes, lists)]
    _print_counts(found, time.monotonic() - began)
    return _verdict(found, faults(every, lists))


def _chosen(names: list[str], is_core: bool) -> Iterable[str]:
    core = lines((judge.HERE / "core.txt").read_text())
    return [name for name in names if not is_core or any(line.matches(name) for line in core)]


def _plain(outcomes: Iterable[Outcome]) -> list[Finding]:
    """What no list excuses."""
    return [Finding(one.name, Kind.PASSED if one.outcome == "ok" else Kind.FAILED) for one in outcomes]


def _service(name: str) -> str:
    return next((one for one in SERVICES if f"tempest.api.{one}." in name), SESSION)


def _print_counts(found: list[Finding], took_s: float) -> None:
    counts: defaultdict[str, Counter[Kind]] = defaultdict(Counter)
    for one in found:
        counts[_service(one.name)][one.kind] += 1
    print(f"{'':12}" + "".join(f"{kind.value:>11}" for kind in Kind))
    for service in (one for one in (*SERVICES, SESSION) if one in counts):
        print(f"{service:12}" + "".join(f"{counts[service][kind]:11}" for kind in Kind))
    total = sum(counts.values(), Counter[Kind]())
    print(f"{'all':12}" + "".join(f"{total[kind]:11}" for kind in Kind) + f"   in {took_s:.0f} s")


def _verdict(found: list[Finding], wrong: list[str]) -> int:
    unexpected = [one for one in found if one.kind in UNEXPECTED]
    for one in unexpected:
        print(f"{one.kind.value}: {one.name}" + (f" ({one.note})" if one.note else ""))
    for line in wrong:
        print(f"a line {line}")
    if unexpected:
        print(f"What Tempest saw is in {judge.OUTPUT}, what the cloud logged in {judge.CLOUD_LOGS}.")
    if not any(one.kind is Kind.PASSED for one in found):
        print("Nothing passed.")
        return 1
    return 1 if unexpected or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
