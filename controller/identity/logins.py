"""Logging in: from proofs of identity and a wish for a scope to a token.

Every failure says the same sentence: who may learn that a user exists, or that a password was right and only the
project was wrong, has already been let in too far.
"""

from typing import Any, Final

import msgspec

from controller.cloud import Cloud
from controller.db.tx import Tx
from controller.errors import NotFound, Unauthorized
from controller.identity import store
from controller.identity.model import SYSTEM, Domain, Project, Target, TargetKind, User
from controller.identity.standing import standing
from controller.identity.tokens import Known, Methods, Payload

_REFUSED: Final = "The request you have made requires authentication."


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A domain, user or project as a client names it: by id, or by name (in a domain)."""

    id: str | None = None
    name: str | None = None
    domain: "Place | None" = None


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The scope asked for. `is_unscoped` is explicit; with nothing at all the user's default project is tried."""

    project: Place | None = None
    domain: Place | None = None
    is_system: bool = False
    is_unscoped: bool = False


async def log_in(cloud: Cloud, user: Place | None, password: str, token: str | None, wish: Wish) -> Known:
    """Proves a password (`user`), a token, or both for one user. Raises Unauthorized; NotFound for a dead token."""
    parent: Payload | None = None
    methods, user_ids = Methods(0), set()
    if token is not None:
        parent = await _proven(cloud, token)
        user_ids.add(parent.user_id)
        methods |= Methods.TOKEN
    if user is not None:
        user_ids.add(await _prove(cloud, user, password))
        methods |= Methods.PASSWORD
    if len(user_ids) != 1:
        raise Unauthorized(_REFUSED)
    user_id = user_ids.pop()
    target = await cloud.db.read(_target, user_id, wish)
    return await cloud.tokens.issue(user_id, target, methods, parent)


async def _proven(cloud: Cloud, token: str) -> Payload:
    try:
        return (await cloud.tokens.check(token)).payload
    except Unauthorized as error:
        # As Keystone has it, and Tempest wants it: clients take a 401 as "log in again", with the same token.
        raise NotFound("Could not find token.") from error


async def _prove(cloud: Cloud, user: Place, password: str) -> str:
    user_id, stored = await cloud.db.read(_credentials, user)
    if not await cloud.passwords.is_right(stored, password):
        raise Unauthorized(_REFUSED)
    return user_id


def _credentials(tx: Tx, place: Place) -> tuple[str, str | None]:
    """(user id, stored hash); no hash for whom we do not know, so that the check costs the same."""
    found: User | None = None
    if place.id is not None:
        found = store.find(tx, User, place.id)
    elif place.name is not None and (domain_id := _domain_id(tx, place.domain)) is not None:
        found = store.find_named(tx, User, place.name, domain_id)
    return ("", None) if found is None else (found.id, store.password_of(tx, found.id))


def _domain_id(tx: Tx, place: Place | None) -> str | None:
    if place is None or place.id is not None:
        return None if place is None else place.id
    found = None if place.name is None else store.find_named(tx, Domain, place.name)
    return None if found is None else found.id


def _target(tx: Tx, user_id: str, wish: Wish) -> Target | None:
    """The scope by ids. Raises Unauthorized for one that does not exist."""
    if wish.is_unscoped:
        return None
    if wish.is_system:
        return SYSTEM
    if wish.domain is not None:
        return Target(TargetKind.DOMAIN, _known(_domain_id(tx, wish.domain)))
    if wish.project is None:
        return _default(tx, user_id)
    if wish.project.id is not None:
        return Target(TargetKind.PROJECT, wish.project.id)
    domain_id = _known(_domain_id(tx, wish.project.domain))
    found = store.find_named(tx, Project, wish.project.name or "", domain_id)
    return Target(TargetKind.PROJECT, _known(None if found is None else found.id))


def _known(id: str | None) -> str:
    if id is None:
        raise Unauthorized(_REFUSED)
    return id


def _default(tx: Tx, user_id: str) -> Target | None:
    """The user's default project if a token for it could be had, else no scope."""
    found: Any = store.find(tx, User, user_id)
    if found is None or found.default_project_id is None:
        return None
    target = Target(TargetKind.PROJECT, found.default_project_id)
    return None if standing(tx, user_id, target) is None else target
