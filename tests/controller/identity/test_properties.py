"""Properties of authorisation: whatever happened before, a token gives what is assigned now, and no more."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from controller.errors import Unauthorized
from controller.identity import groups, roles, store
from controller.identity.model import SYSTEM, Actor, ActorKind, Group, Project, Role, Target, TargetKind, User
from controller.identity.standing import closure
from controller.identity.tokens import Known, Methods
from tests.api.clouds import ApiCloud, api_cloud

NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=4), max_size=6), st.lists(NAMES, max_size=3))
def test_closure_is_the_smallest_set_that_is_closed(implied: dict[str, list[str]], start: list[str]) -> None:
    held = closure(start, implied)
    assert set(start) <= held
    for name in held:
        assert set(implied.get(name, ())) <= held
    for name in held - set(start):
        assert any(name in implied.get(other, ()) for other in held if other != name)


USERS, PROJECTS = ("u0", "u1"), ("p0", "p1")
ROLES = ("manager", "member", "reader")
TARGETS = (*(Target(TargetKind.PROJECT, project) for project in PROJECTS), Target(TargetKind.DOMAIN, "default"), SYSTEM)
ACTORS = (*(Actor(ActorKind.USER, user) for user in USERS), Actor(ActorKind.GROUP, "g0"))

STEPS = st.one_of(
    st.tuples(st.just("grant"), st.sampled_from(ACTORS), st.sampled_from(TARGETS), st.sampled_from(ROLES)),
    st.tuples(st.just("revoke"), st.sampled_from(ACTORS), st.sampled_from(TARGETS), st.sampled_from(ROLES)),
    st.tuples(st.just("join"), st.sampled_from(USERS)),
    st.tuples(st.just("leave"), st.sampled_from(USERS)),
    st.tuples(st.just("log in"), st.sampled_from(USERS), st.sampled_from(TARGETS)),
    st.tuples(st.just("disable"), st.sampled_from((*USERS, *PROJECTS))),
    st.tuples(st.just("enable"), st.sampled_from((*USERS, *PROJECTS))),
    st.tuples(st.just("password"), st.sampled_from(USERS)),
)

IMPLIED = {"manager": {"manager", "member", "reader"}, "member": {"member", "reader"}, "reader": {"reader"}}


class Model:
    """What the cloud should think."""

    def __init__(self) -> None:
        self.given: set[tuple[Actor, Target, str]] = set()
        self.members: set[str] = set()
        self.enabled = dict.fromkeys((*USERS, *PROJECTS), True)
        self.tokens: list[tuple[Known, str, Target]] = []
        self.dead: set[int] = set()

    def roles(self, user_id: str, target: Target) -> set[str]:
        actors = {Actor(ActorKind.USER, user_id), *({Actor(ActorKind.GROUP, "g0")} if user_id in self.members else ())}
        direct = [role for actor, place, role in self.given if actor in actors and place == target]
        return {name for role in direct for name in IMPLIED[role]}

    def kill(self, id: str) -> None:
        self.dead |= {n for n, (_, user_id, target) in enumerate(self.tokens) if id in (user_id, target.id)}

    def stands(self, user_id: str, target: Target) -> bool:
        place_is_on = self.enabled.get(target.id, True)
        return self.enabled[user_id] and place_is_on and bool(self.roles(user_id, target))


async def arranged(cloud: ApiCloud) -> dict[str, str]:
    """Users, projects and a group with short ids; role ids by name."""
    write = cloud.cloud.db.write
    common: dict[str, Any] = {"domain_id": "default", "extra": {}, "created_at": 0.0}
    for name in USERS:
        person = User(id=name, name=name, enabled=True, default_project_id=None, auth_generation=1, **common)
        await write(store.insert, User, person, password_hash=None)
    for name in PROJECTS:
        more = {"parent_id": "default", "description": "", "enabled": True, "tags": [], "auth_generation": 1}
        await write(store.insert, Project, Project(id=name, name=name, **more, **common))
    await write(store.insert, Group, Group(id="g0", name="g0", description="", **common))
    found = {name: await cloud.cloud.db.read(store.find_named, Role, name) for name in ROLES}
    return {name: role.id for name, role in found.items() if role is not None}


async def take(cloud: ApiCloud, model: Model, role_ids: dict[str, str], step: tuple[Any, ...]) -> None:
    """One step in the cloud and in the model."""
    write, tokens = cloud.cloud.db.write, cloud.cloud.tokens
    match step:
        case ("grant", actor, target, role):
            await write(roles.grant, cloud.cloud.world.entropy.hex(32), actor, target, role_ids[role])
            model.given.add((actor, target, role))
        case ("revoke", actor, target, role):
            if (actor, target, role) in model.given:
                await write(roles.revoke, actor, target, role_ids[role])
                model.given.remove((actor, target, role))
        case ("join", user_id):
            await write(groups.add, "g0", user_id)
            model.members.add(user_id)
        case ("leave", user_id):
            if user_id in model.members:
                await write(groups.remove, "g0", user_id)
                model.members.remove(user_id)
        case ("log in", user_id, target):
            try:
                model.tokens.append((await tokens.issue(user_id, target, Methods.PASSWORD, None), user_id, target))
                assert model.stands(user_id, target)
            except Unauthorized:
                assert not model.stands(user_id, target)
        case ("disable" | "enable" as verb, id):
            kind: Any = User if id in USERS else Project
            is_on = verb == "enable"
            ends = model.enabled[id] and not is_on
            await write(store.update, kind, id, {"enabled": is_on}, ends_tokens=ends)
            model.enabled[id] = is_on
            if ends:
                model.kill(id)
        case ("password", user_id):
            await write(store.set_password, user_id, "hash")
            model.kill(user_id)
    tokens.changed()


async def compare(cloud: ApiCloud, model: Model) -> None:
    for number, (known, user_id, target) in enumerate(model.tokens):
        expected = set() if number in model.dead or not model.stands(user_id, target) else model.roles(user_id, target)
        try:
            found = set((await cloud.cloud.tokens.authenticate(known.text, "", "")).roles)
        except Unauthorized:
            found = set()
        assert found == expected, (number, user_id, target)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_a_token_gives_exactly_what_is_assigned_now(steps: list[tuple[Any, ...]]) -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with api_cloud(Path(folder)) as cloud:
                role_ids = await arranged(cloud)
                model = Model()
                for step in steps:
                    await take(cloud, model, role_ids, step)
                    await compare(cloud, model)

    asyncio.run(scenario())
