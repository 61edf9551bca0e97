"""/projects."""

from typing import Any

from controller.db.tables.identity import project
from controller.http.filters import Filter, boolean
from controller.http.op import Call
from controller.http.paging import page_of
from controller.identity import projects, store
from controller.identity.api import asking, views
from controller.identity.api.bodies import ProjectCreate, ProjectUpdate, given, opened
from controller.identity.model import Project, TargetKind, User

FILTERS = {**asking.named(project), "parent_id": Filter(project.c.parent_id)}


async def index(call: Call) -> dict[str, Any]:
    """GET /projects."""
    wanted = call.query.get("is_domain")
    if wanted and boolean("is_domain", wanted):
        return {"projects": [], "links": views.links(call)}
    return await asking.page(call, Project, "projects", FILTERS)


async def of_user(call: Call) -> dict[str, Any]:
    """GET /users/{user_id}/projects: those on which the user has a role."""
    user_id = call.params["user_id"]
    await asking.seen(call, User, user_id, "identity:list_user_projects")
    page = page_of(call, {}, ())
    where = (store.reachable(user_id, TargetKind.PROJECT),)
    return views.listed(call, "projects", await call.cloud.db.read(store.page, Project, where, page), page)


async def create(call: Call) -> dict[str, Any]:
    """POST /projects."""
    wanted, extra = opened(ProjectCreate, call.body.project, "project")
    domain_id = await asking.owning_domain(call, wanted.domain_id)
    call.authorize("identity:create_project", {"domain_id": domain_id})
    made = Project(
        id=asking.new_id(call),
        domain_id=domain_id,
        parent_id=wanted.parent_id or domain_id,
        name=wanted.name,
        description=wanted.description or "",
        enabled=wanted.enabled,
        tags=list(dict.fromkeys(wanted.tags)),
        auth_generation=1,
        extra=extra,
        created_at=call.cloud.world.clock.now(),
    )
    return {"project": views.view(call, await asking.write(call, projects.create, made))}


async def show(call: Call) -> dict[str, Any]:
    """GET /projects/{project_id}."""
    found = await asking.seen(call, Project, call.params["project_id"], "identity:get_project")
    return {"project": views.view(call, found)}


async def update(call: Call) -> dict[str, Any]:
    """PATCH /projects/{project_id}."""
    changes, extra = opened(ProjectUpdate, call.body.project, "project")
    found = await asking.seen(call, Project, call.params["project_id"], "identity:update_project")
    values = asking.changed_columns(found, given(changes), extra)
    return {"project": views.view(call, await asking.write(call, projects.update, found.id, values))}


async def delete(call: Call) -> None:
    """DELETE /projects/{project_id}."""
    found = await asking.seen(call, Project, call.params["project_id"], "identity:delete_project")
    await asking.write(call, projects.delete, found.id)
