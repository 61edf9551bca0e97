"""Rules of projects. Transaction functions: ids and times are arguments."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from controller.db.tables.identity import project, role_assignment, user
from controller.db.tx import Tx
from controller.errors import Forbidden, Invalid
from controller.identity import store
from controller.identity.model import Domain, Project, TargetKind

DEPTH_MAX: Final = 5
"""Levels of projects below a domain, as in Keystone: deeper trees only make quotas and permissions unreadable."""

TAGS_MAX: Final = 80
"""Of one project, as in Keystone: all of them ride along in every listing."""


def exists(tx: Tx, project_id: str) -> bool:
    """Whether there is such a project, enabled or not."""
    return store.find(tx, Project, project_id) is not None


def create(tx: Tx, made: Project) -> Project:
    """Raises NotFound for domain or parent, Conflict for the name, Invalid or Forbidden for the place in the tree."""
    store.get(tx, Domain, made.domain_id)
    depth, above = 1, made.parent_id
    while above != made.domain_id:
        parent = store.get(tx, Project, above)
        if parent.domain_id != made.domain_id:
            raise Invalid("A project must be in the same domain as its parent.")
        depth, above = depth + 1, parent.parent_id
    if depth > DEPTH_MAX:
        raise Forbidden(f"Max hierarchy depth reached: projects nest at most {DEPTH_MAX} deep.")
    if store.find_named(tx, Project, made.name, made.domain_id) is not None:
        raise store.taken(Project, made.name)
    return store.insert(tx, Project, made)


def update(tx: Tx, project_id: str, values: Mapping[str, Any]) -> Project:
    """Disabling a project ends its tokens. Raises NotFound, Conflict, Invalid."""
    before = store.get(tx, Project, project_id)
    for key in ("domain_id", "parent_id"):
        if values.get(key, getattr(before, key)) != getattr(before, key):
            raise Invalid(f"The {key} of a project cannot be changed.")
    is_disabled = before.enabled and values.get("enabled") is False
    return store.update(tx, Project, project_id, values, ends_tokens=is_disabled)


def get(tx: Tx, project_id: str) -> Project:
    """Raises NotFound."""
    return store.get(tx, Project, project_id)


def add_tag(tx: Tx, project_id: str, tag: str) -> Project:
    """A label that it may have already. Raises NotFound; Invalid when it would have too many."""
    found = store.get(tx, Project, project_id)
    if tag in found.tags:
        return found
    if len(found.tags) >= TAGS_MAX:
        raise Invalid(f"A project has at most {TAGS_MAX} tags.")
    return store.update(tx, Project, project_id, {"tags": [*found.tags, tag]})


def delete(tx: Tx, project_id: str) -> None:
    """Also what was assigned on it. Raises NotFound, Forbidden when it has projects below."""
    store.get(tx, Project, project_id)
    if store.exists(tx, Project, project.c.parent_id == project_id):
        raise Forbidden(f"Cannot delete project {project_id}: it has projects below it.")
    store.forget_assignments(
        tx,
        role_assignment.c.target_kind == TargetKind.PROJECT.value,
        role_assignment.c.target_id == project_id,
    )
    tx.execute(sa.update(user).where(user.c.default_project_id == project_id).values(default_project_id=None))
    store.delete(tx, Project, project_id)


def descendants(tx: Tx, project_id: str) -> list[str]:
    """Ids of all projects below one."""
    found: list[str] = []
    level = [project_id]
    while level:
        level = list(tx.execute(sa.select(project.c.id).where(project.c.parent_id.in_(level))).scalars())
        found += level
    return found
