"""nftables as values: what a table should hold, and the commands that turn one such value into another. Pure.

The difference between two values is one transaction, in an order that never refers to what is not there yet or any
more: make what is new, empty what changed, take elements out, put elements in, write rules, remove what is left over.
An element that comes or goes is one command on one set; no rule is touched for it.
"""

from collections.abc import Iterable, Mapping

import msgspec


class SetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A set or a map: `kind` is what follows its name in braces (`type ipv4_addr; flags interval;`).

    Elements are texts; of a map's element the value follows the key, and is part of its identity.
    """

    kind: str
    is_map: bool = False
    elements: Mapping[str, str] = {}  # key -> value ("" in a set)


class ChainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A chain; `hook` is the declaration of a base chain (`type filter hook input priority 0; policy accept;`)."""

    hook: str = ""
    rules: tuple[str, ...] = ()


class TableSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A table."""

    family: str
    name: str
    sets: Mapping[str, SetSpec] = {}
    chains: Mapping[str, ChainSpec] = {}


ELEMENTS_MAX = 500
"""Elements in one command. More make long lines in errors; fewer cost nothing measurable."""


def elements(*keys: str) -> dict[str, str]:
    """The elements of a set."""
    return dict.fromkeys(keys, "")


def replace(table: TableSpec) -> str:
    """The transaction that leaves exactly this table, whatever was there under its name."""
    where = f"{table.family} {table.name}"
    return f"add table {where}\ndelete table {where}\nadd table {where}\n" + change(_empty(table), table)


def change(before: TableSpec, after: TableSpec) -> str:
    """The transaction that turns `before` into `after`; empty if they are the same."""
    assert (before.family, before.name) == (after.family, after.name), "a table keeps its name"
    before = _without_redeclared(before, after)
    where = f"{after.family} {after.name}"
    rewritten = [
        name for name, chain in after.chains.items() if chain.rules != before.chains.get(name, ChainSpec()).rules
    ]
    lines = [
        *_declarations(where, before, after),
        *(f"flush chain {where} {name}" for name in rewritten if name in before.chains),
        *_element_lines(where, "delete", _gone(before, after)),
        *_element_lines(where, "add", _gone(after, before)),
        *(f"add rule {where} {name} {rule}" for name in rewritten for rule in after.chains[name].rules),
        *_removals(where, before, after),
    ]
    return "".join(line + "\n" for line in lines)


def _empty(table: TableSpec) -> TableSpec:
    return TableSpec(family=table.family, name=table.name)


def _without_redeclared(before: TableSpec, after: TableSpec) -> TableSpec:
    """Sets and base chains cannot change their declaration; our names imply it, so this is a programmer's error."""
    for name, spec in before.sets.items():
        assert name not in after.sets or after.sets[name].kind == spec.kind, f"set {name} changed its kind"
    for name, chain in before.chains.items():
        assert name not in after.chains or after.chains[name].hook == chain.hook, f"chain {name} changed its hook"
    return before


def _declarations(where: str, before: TableSpec, after: TableSpec) -> Iterable[str]:
    for name, spec in after.sets.items():
        if name not in before.sets:
            yield f"add {'map' if spec.is_map else 'set'} {where} {name} {{ {spec.kind} }}"
    for name, chain in after.chains.items():
        if name not in before.chains:
            yield f"add chain {where} {name}" + (f" {{ {chain.hook} }}" if chain.hook else "")


def _gone(before: TableSpec, after: TableSpec) -> dict[str, dict[str, str]]:
    """Per set, the elements of `before` that `after` has not (or has with another value)."""
    result = {}
    for name, spec in before.sets.items():
        if after.sets.get(name) is spec:
            continue
        kept = after.sets[name].elements if name in after.sets else {}
        missing = {key: value for key, value in spec.elements.items() if kept.get(key) != value}
        if missing:
            result[name] = missing
    return result


def _element_lines(where: str, verb: str, per_set: dict[str, dict[str, str]]) -> Iterable[str]:
    for name, content in per_set.items():
        texts = [f"{key} : {value}" if value else key for key, value in content.items()]
        for start in range(0, len(texts), ELEMENTS_MAX):
            yield f"{verb} element {where} {name} {{ {', '.join(texts[start : start + ELEMENTS_MAX])} }}"


def _removals(where: str, before: TableSpec, after: TableSpec) -> Iterable[str]:
    """Chains that go are emptied first, all of them: they may jump to each other."""
    chains = [name for name in before.chains if name not in after.chains]
    yield from (f"flush chain {where} {name}" for name in chains)
    yield from (f"delete chain {where} {name}" for name in chains)
    for name, spec in before.sets.items():
        if name not in after.sets:
            yield f"delete {'map' if spec.is_map else 'set'} {where} {name}"
