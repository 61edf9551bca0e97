"""The contract is what the golden files say, and stays readable for older and newer peers."""

import json
from typing import Any

import msgspec
import pytest

from agent.wire import host
from agent.wire.contract import CALLS, EVENTS
from agent.wire.domain import DomainStatus
from agent.wire.errors import Fault, FaultCode
from agent.wire.lifecycle import Generation, Power
from agent.wire.specs import FAST_S, Absence, ObjectSpec, ObjectStatus, Ref, decode, encode
from tests.wire import regenerate, samples

KINDS = sorted(regenerate.kinds().items())
every_kind = pytest.mark.parametrize("kind", [kind for _, kind in KINDS], ids=[name for name, _ in KINDS])


def test_the_golden_files_are_those_of_this_code() -> None:
    """If this fails the contract has changed: run `python -m tests.wire.regenerate` and look at the difference."""
    kept = {path: path.read_text() for path in regenerate.GOLDEN.glob("*.json")}
    assert kept == regenerate.files()


@every_kind
def test_a_message_survives_the_wire(kind: type[Any]) -> None:
    value = samples.full(kind)
    assert decode(encode(value), kind) == value


@every_kind
def test_fields_of_a_newer_peer_are_ignored_at_any_depth(kind: type[Any]) -> None:
    value = samples.full(kind)
    data = msgspec.json.encode(_with_surprises(json.loads(encode(value))))
    assert decode(data, kind) == value


@every_kind
def test_a_message_without_optional_fields_is_understood(kind: type[Any]) -> None:
    """So an older peer, which knows only the fields that are required, can still be talked to."""
    decode(msgspec.json.encode(samples.minimal(kind)), kind)


def _with_surprises(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_surprises(each) for each in value]
    if not isinstance(value, dict):
        return value
    is_map = any(key.endswith("-key") for key in value)  # As `samples` fills those: every key is data there.
    surprise = {} if is_map else {"from_the_future": {"x": 1}}
    return surprise | {key: _with_surprises(each) for key, each in value.items()}


def test_reasons_and_states_that_only_a_newer_host_knows_are_read_as_the_general_one() -> None:
    assert decode(b'{"code": "tired", "message": "m"}', Fault).code is FaultCode.FAILED
    status = b'{"id": "d", "generation": [1, 2], "progress": "ready", "power": "dreaming"}'
    assert decode(status, DomainStatus).power is Power.UNKNOWN


def test_names_are_unique_and_of_the_form_noun_verb() -> None:
    names = [row.name for row in CALLS]
    assert len(set(names)) == len(names)
    assert all(name.count(".") == 1 for name in names)


def test_every_noun_that_can_be_ensured_can_be_removed_looked_at_and_heard() -> None:
    rows = {row.name: row for row in CALLS}
    nouns = [row.noun for row in CALLS if row.name.endswith(".ensure")]
    assert nouns
    for noun in nouns:
        ensure, absent, get = (rows[f"{noun}.{verb}"] for verb in ("ensure", "absent", "get"))
        assert issubclass(ensure.request, ObjectSpec)
        assert issubclass(ensure.reply, ObjectStatus)
        assert (absent.request, get.request) == (Absence, Ref)
        assert ensure.reply is absent.reply is get.reply is EVENTS[noun]
        assert ensure.timeout_s == absent.timeout_s == get.timeout_s == FAST_S


def test_generations_compare_epoch_first() -> None:
    assert Generation(2, 1) > Generation(1, 99) > Generation(1, 98)


def test_a_digest_does_not_depend_on_order_or_progress_but_on_all_else() -> None:
    def entry(**changed: Any) -> host.LedgerEntry:
        values = {"noun": "port", "id": "a", "generation": Generation(1, 1), "absent": False, "progress": "ready"}
        return host.LedgerEntry(**{**values, **changed})

    base = host.digest([entry(), entry(id="b")])
    assert base == host.digest([entry(id="b", progress="failed"), entry()])
    others = [entry(id="c"), entry(noun="disk"), entry(generation=Generation(1, 2)), entry(absent=True)]
    assert len({host.digest([entry(), other]) for other in others} | {base}) == len(others) + 1
