"""`python -m tests.conformance`: what Tempest and the SDK say of a cloud with fake hosts; 1 for any failure.

python -m tests.conformance                 every test of include.txt but those of exclude.txt
python -m tests.conformance --regex R       only those that match
python -m tests.conformance --keep          leave the cloud running, and use one that was left running
python -m tests.conformance --excluded      run what is excluded, and say what passes by now
"""

import argparse
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

from controller.cli import clouds
from tests.conformance import judge, settings
from tests.conformance.cloud import running_cloud
from tests.conformance.judge import Line, Outcome

TIMEOUT_S = 900
SERVICES = ("identity", "image", "network", "compute")
SESSION = "openstacksdk"


def main() -> int:
    """Judge; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regex", default="", help="only tests that match")
    parser.add_argument("--keep", action="store_true", help="leave the cloud running for the next run")
    parser.add_argument("--excluded", action="store_true", help="run what is excluded")
    options = parser.parse_args()
    judge.install()
    began = time.monotonic()
    with running_cloud(is_kept=options.keep) as cloud:
        judge.new_workspace(lambda workspace: settings.write(workspace, cloud))
        included, excluded, idle = _chosen(judge.every_test())
        wanted = excluded if options.excluded else included
        names = [name for name in wanted if re.search(options.regex, name)]
        try:
            outcomes = [] if options.regex or options.excluded else judge.session(clouds.path(cloud.trial))
            outcomes += judge.run(names, TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            print(f"{error.cmd[0]} did not end within {error.timeout:.0f} s; see {judge.OUTPUT}")
            return 1
    if options.excluded:
        _print_passing(outcomes, excluded)
        return 0
    _print_counts(outcomes, excluded, time.monotonic() - began)
    return _verdict(outcomes, names, idle)


def _chosen(every: Iterable[str]) -> tuple[list[str], dict[str, Line], list[Line]]:
    """(what is judged, what is not and by which line, lines that exclude nothing)."""
    take, leave = judge.lines(judge.HERE / "include.txt"), judge.lines(judge.HERE / "exclude.txt")
    included: list[str] = []
    excluded: dict[str, Line] = {}
    used: set[Line] = set()
    for name in every:
        if not any(line.matches(name) for line in take):
            continue
        against = [line for line in leave if line.matches(name)]
        used.update(against)
        if against:
            excluded[name] = against[0]
        else:
            included.append(name)
    return included, excluded, [line for line in leave if line not in used]


def _service(name: str) -> str:
    return next((one for one in SERVICES if f"tempest.api.{one}." in name), SESSION)


def _print_counts(outcomes: list[Outcome], excluded: dict[str, Line], took_s: float) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in outcomes:
        counts[_service(one.name)][one.outcome] += 1
    for name in excluded:
        counts[_service(name)]["excluded"] += 1
    columns = {"passed": "ok", "failed": "FAILED", "skipped": "SKIPPED", "excluded": "excluded"}
    print(f"{'':12}" + "".join(f"{title:>10}" for title in columns))
    for service in (one for one in (*SERVICES, SESSION) if one in counts):
        print(f"{service:12}" + "".join(f"{counts[service][key]:10}" for key in columns.values()))
    total = sum(counts.values(), Counter[str]())
    print(f"{'all':12}" + "".join(f"{total[key]:10}" for key in columns.values()) + f"   in {took_s:.0f} s")


def _print_passing(outcomes: list[Outcome], excluded: dict[str, Line]) -> None:
    reasons = {name.partition("[")[0]: line.reason for name, line in excluded.items()}
    passing = sorted(one.name for one in outcomes if one.outcome == "ok")
    for name in passing:
        print(f"passes: {name}  ({reasons[name]})")
    print(f"{len(passing)} of {len(excluded)} excluded tests pass.")


def _verdict(outcomes: list[Outcome], names: list[str], idle: list[Line]) -> int:
    failed = [one.name for one in outcomes if one.outcome == "FAILED"]
    for name in failed:
        print(f"failed: {name}")
    for line in idle:
        print(f"excludes nothing: {line.pattern.pattern}")
    unreasoned = [line for line in judge.lines(judge.HERE / "exclude.txt") if not line.reason]
    for line in unreasoned:
        print(f"excluded without a reason: {line.pattern.pattern}")
    if not names or not any(one.outcome == "ok" for one in outcomes):
        print("Nothing was judged.")
        return 1
    if failed:
        print(f"What Tempest saw is in {judge.OUTPUT}.")
    return 1 if failed or idle or unreasoned else 0


if __name__ == "__main__":
    sys.exit(main())
