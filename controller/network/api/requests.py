"""What all resources ask of a request: whose it is, which revision is meant, which attributes need more rights."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import UnsetType

from controller.errors import Invalid
from controller.http.op import Call
from controller.network.model import Standard
from controller.network.policy import RULES

_IF_MATCH: Final = re.compile(r'"?revision_number=(-?\d{1,9})"?')


def revision(call: Call) -> int | None:
    """The revision that the client's If-Match names, or None. Raises Invalid."""
    header = call.request.headers.get("if-match")
    if header is None:
        return None
    match = _IF_MATCH.fullmatch(header.strip())
    if match is None:
        raise Invalid("If-Match must be revision_number=<number>.")
    return int(match[1])


def owner(call: Call, body: Any) -> str:
    """The project that a new object will belong to. Only administrators may name another than their own."""
    named = {one for one in (body.project_id, body.tenant_id) if not isinstance(one, UnsetType)}
    if len(named) > 1:
        raise Invalid("'project_id' and 'tenant_id' do not match")
    project_id = next(iter(named), call.ctx.project_id)
    if not project_id:
        raise Invalid("Your token has no project: name the owner with 'project_id'.")
    if project_id != call.ctx.project_id and not call.ctx.is_admin:
        raise Invalid(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request "
            "requires admin privileges"
        )
    return str(project_id)


def standard(call: Call, body: Any, project_id: str, now: float) -> dict[str, Any]:
    """What every new object has, with a fresh id."""
    return {
        "id": call.cloud.world.entropy.uuid(),
        "project_id": project_id,
        "name": _text(body, "name"),
        "description": _text(body, "description"),
        "created_at": now,
        "updated_at": now,
    }


def _text(body: Any, name: str) -> str:
    value = getattr(body, name, "")
    return "" if isinstance(value, UnsetType) else value


def authorize(call: Call, rule: str, target: Mapping[str, Any], attributes: Iterable[str] = ()) -> None:
    """Check an object rule, and the rule of every attribute that has one. Raises Forbidden."""
    call.authorize(rule, target)
    for name in attributes:
        if f"{rule}:{name}" in RULES:
            call.authorize(f"{rule}:{name}", target)


def owned(one: Standard) -> dict[str, Any]:
    """The policy target of an object of a project's."""
    return {"project_id": one.project_id}


def settle(call: Call) -> None:
    """Intent has changed: hosts are to learn of it now, not at the next round."""
    call.cloud.tasks.kick("network_sync")
