"""Tokens and what they open: log in, validate, revoke, and where the caller could go."""

from typing import Any, Final

import msgspec

from controller.errors import Forbidden, Invalid, NotFound, Unauthorized
from controller.http.op import Call, Reply
from controller.http.paging import page_of
from controller.identity import logins, store
from controller.identity.api import views
from controller.identity.api.bodies import AuthBody, DomainPlace, Proofs, Scope
from controller.identity.logins import Place, Wish
from controller.identity.model import Domain, Project, TargetKind
from controller.identity.tokens import Known

_encode: Final = msgspec.json.Encoder().encode
_VARY: Final = {"Vary": "X-Auth-Token", "Content-Type": "application/json"}


async def log_in(call: Call) -> Reply:
    """POST /auth/tokens."""
    body: AuthBody = call.body
    proofs = body.auth.identity
    user, password, token = _proofs(proofs)
    known = await logins.log_in(call.cloud, user, password, token, _wish(body.auth.scope))
    headers = {**_VARY, "X-Subject-Token": known.text}
    return Reply(await _rendered(call, known), 201, headers)


def _proofs(proofs: Proofs) -> tuple[Place | None, str, str | None]:
    """(user, password, token). Raises Invalid when a method lacks its proof, Unauthorized for one not offered."""
    user, password, token = None, "", None
    for method in proofs.methods:
        if method == "password":
            if proofs.password is None:
                raise Invalid("Expecting to find password in identity.")
            given = proofs.password.user
            if given.id is None and (given.name is None or given.domain is None):
                raise Invalid("Expecting to find id, or name and domain, in user.")
            user, password = Place(id=given.id, name=given.name, domain=_domain(given.domain)), given.password
        elif method == "token":
            if proofs.token is None:
                raise Invalid("Expecting to find token in identity.")
            token = proofs.token.id
        else:
            raise Unauthorized("Attempted to authenticate with an unsupported method.")
    return user, password, token


def _wish(scope: Scope | str | None) -> Wish:
    if scope is None:
        return Wish()
    if not isinstance(scope, Scope):
        return Wish(is_unscoped=True)
    wished = [key for key in ("project", "domain", "system", "unscoped") if getattr(scope, key) is not None]
    if len(wished) != 1:
        raise Invalid("A scope names exactly one of project, domain, system and unscoped.")
    if scope.project is not None:
        given = scope.project
        if given.id is None and (given.name is None or given.domain is None):
            raise Invalid("Expecting to find id, or name and domain, in project.")
        return Wish(project=Place(id=given.id, name=given.name, domain=_domain(given.domain)))
    return Wish(
        domain=_domain(scope.domain), is_system=scope.system is not None, is_unscoped=scope.unscoped is not None
    )


def _domain(given: DomainPlace | None) -> Place | None:
    if given is None:
        return None
    if given.id is None and given.name is None:
        raise Invalid("Expecting to find id or name in domain.")
    return Place(id=given.id, name=given.name)


async def _rendered(call: Call, known: Known) -> bytes:
    """A token's body; kept with the token for as long as nothing changes that it could show."""
    form = "plain" if "nocatalog" in call.query else "full"
    kept = known.rendered.get(form)
    if kept is None:
        shown = None
        if form == "full" and known.standing.target is not None:
            shown = await _catalog(call, known.ctx.project_id)
        kept = known.rendered[form] = _encode({"token": views.token(known, shown)})
    return kept


async def _catalog(call: Call, project_id: str | None) -> list[dict[str, Any]]:
    return views.catalog(await call.cloud.db.read(store.catalog), views.public_url(call), project_id)


async def _subject(call: Call, rule: str) -> Known:
    """The token that the request speaks of. Raises NotFound, also for what the caller may not ask about."""
    text = call.request.headers.get("x-subject-token")
    if not text:
        raise Invalid("The header X-Subject-Token is missing.")
    try:
        known = await call.cloud.tokens.check(text)
    except Unauthorized as error:
        raise NotFound("Could not find token.") from error
    call.authorize(rule, {"user_id": known.standing.user.id})
    return known


async def validate(call: Call) -> Reply:
    """GET and HEAD /auth/tokens."""
    known = await _subject(call, "identity:validate_token")
    return Reply(await _rendered(call, known), headers={**_VARY, "X-Subject-Token": known.text})


async def revoke(call: Call) -> None:
    """DELETE /auth/tokens."""
    await call.cloud.tokens.revoke(await _subject(call, "identity:revoke_token"))


async def catalog(call: Call) -> dict[str, Any]:
    """GET /auth/catalog."""
    ctx = call.ctx
    if ctx.project_id is None and ctx.domain_id is None and not ctx.is_system:
        raise Forbidden("An unscoped token has no catalog.")
    return {"catalog": await _catalog(call, ctx.project_id), "links": views.links(call)}


async def projects(call: Call) -> dict[str, Any]:
    """GET /auth/projects: where the caller could scope to."""
    page = page_of(call, {}, ())
    table = store.TABLES[Project]
    where = (store.reachable(call.ctx.user_id, TargetKind.PROJECT), table.c.enabled)
    found = await call.cloud.db.read(store.page, Project, where, page)
    return views.listed(call, "projects", found, page)


async def domains(call: Call) -> dict[str, Any]:
    """GET /auth/domains: where the caller could scope to."""
    page = page_of(call, {}, ())
    table = store.TABLES[Domain]
    where = (store.reachable(call.ctx.user_id, TargetKind.DOMAIN), table.c.enabled)
    found = await call.cloud.db.read(store.page, Domain, where, page)
    return views.listed(call, "domains", found, page)


async def system(call: Call) -> dict[str, Any]:
    """GET /auth/system: whether the caller could scope to the system."""
    has_role = await call.cloud.db.read(store.has_system_role, call.ctx.user_id)
    return {"system": [{"all": True}] if has_role else [], "links": views.links(call)}
