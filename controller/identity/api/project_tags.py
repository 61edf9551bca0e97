"""/projects/{project_id}/tags: labels of a project, one by one or all at once."""

from typing import Any

from controller.db.tx import Tx
from controller.errors import NotFound
from controller.http.op import Call
from controller.identity import projects
from controller.identity.api import asking, views
from controller.identity.api.bodies import tag_text
from controller.identity.model import Project


async def index(call: Call) -> dict[str, Any]:
    """GET."""
    found = await _seen(call, "identity:list_project_tags")
    return {"tags": found.tags, "links": views.links(call)}


async def check(call: Call) -> None:
    """GET and HEAD of one tag."""
    _known(await _seen(call, "identity:get_project_tag"), call.params["tag"])


async def replace(call: Call) -> dict[str, Any]:
    """PUT: these tags and no others."""
    found = await _seen(call, "identity:update_project_tags")
    tags = list(dict.fromkeys(call.body.tags))
    made = await asking.write(call, projects.update, found.id, {"tags": tags})
    return {"tags": made.tags, "links": views.links(call)}


async def clear(call: Call) -> None:
    """DELETE of all."""
    found = await _seen(call, "identity:delete_project_tags")
    await asking.write(call, projects.update, found.id, {"tags": []})


async def add(call: Call) -> None:
    """PUT of one; it may be there already."""
    found = await _seen(call, "identity:create_project_tag")
    await asking.write(call, projects.add_tag, found.id, tag_text(call.params["tag"]))


async def remove(call: Call) -> None:
    """DELETE of one."""
    found = await _seen(call, "identity:delete_project_tag")
    await asking.write(call, _removed, found.id, call.params["tag"])


def _removed(tx: Tx, project_id: str, tag: str) -> None:
    found = _known(projects.get(tx, project_id), tag)
    projects.update(tx, project_id, {"tags": [one for one in found.tags if one != tag]})


def _known(found: Project, tag: str) -> Project:
    if tag not in found.tags:
        raise NotFound(f"Could not find project tag: {tag}.")
    return found


async def _seen(call: Call, rule: str) -> Project:
    return await asking.seen(call, Project, call.params["project_id"], rule)
