"""Who asks: the first argument of everything that a caller's identity decides."""

import msgspec


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One authenticated caller in one scope. `project_id`, `domain_id` and `is_system` exclude each other."""

    request_id: str
    global_request_id: str = ""
    user_id: str
    user_name: str = ""
    user_domain_id: str = "default"
    project_id: str | None = None
    project_name: str = ""
    project_domain_id: str = "default"
    domain_id: str | None = None
    is_system: bool = False
    roles: frozenset[str] = frozenset()  # With the implied ones: admin has manager, member and reader too.
    audit_id: str = ""

    @property
    def is_admin(self) -> bool:
        """May act across projects: role admin, in whatever scope (the deployments that clients know)."""
        return "admin" in self.roles

    @property
    def project(self) -> str:
        """The project's id where the route demands project scope. Policy has checked that there is one."""
        assert self.project_id is not None, "a project-scoped rule let a caller without project pass"
        return self.project_id
