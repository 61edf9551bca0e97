"""Domains, projects, users, groups, roles and the catalog: what clients may rely on."""

from typing import Any

import pytest

from tests.api.clouds import PASSWORD, ApiCloud, on_project

V3 = "/identity/v3"


async def status(cloud: ApiCloud, method: str, path: str, token: str, body: Any = None) -> int:
    return (await cloud.call(method, V3 + path, token, json=body)).status_code


async def test_anyone_may_read_the_version_documents(cloud: ApiCloud) -> None:
    for path in ("/", "/identity", "/identity/"):
        reply = await cloud.call("GET", path)
        assert reply.status_code == 300
        assert reply.json()["versions"]["values"][0]["links"][0]["href"] == "http://127.0.0.1:5000/identity/v3/"
    assert (await cloud.call("GET", "/identity/v3/")).json()["version"]["id"].startswith("v3.")


async def test_names_are_unique_without_case_in_a_domain_only(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    other = (await cloud.made("/domains", admin, {"domain": {"name": "Other"}}))["id"]
    assert await status(cloud, "POST", "/domains", admin, {"domain": {"name": "oTHER"}}) == 409
    for path, key in (("/projects", "project"), ("/users", "user"), ("/groups", "group")):
        await cloud.made(path, admin, {key: {"name": "Straße"}})
        assert await status(cloud, "POST", path, admin, {key: {"name": "STRASSE"}}) == 409
        await cloud.made(path, admin, {key: {"name": "Straße", "domain_id": other}})
        there = await cloud.made(path, admin, {key: {"name": "second"}})
        assert await status(cloud, "PATCH", f"{path}/{there['id']}", admin, {key: {"name": "strasse"}}) == 409
        assert await status(cloud, "PATCH", f"{path}/{there['id']}", admin, {key: {"name": "SECOND"}}) == 200
        found = (await cloud.call("GET", f"{V3}{path}?name=STRASSE&domain_id=default", admin)).json()[f"{key}s"]
        assert [item["domain_id"] for item in found] == ["default"]
    await cloud.made("/roles", admin, {"role": {"name": "r"}})
    assert await status(cloud, "POST", "/roles", admin, {"role": {"name": "R"}}) == 409


async def test_unknown_attributes_are_kept_and_merged(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    made = await cloud.made("/users", admin, {"user": {"name": "u", "email": "a@b", "x": [1, {"y": None}]}})
    assert (made["email"], made["x"]) == ("a@b", [1, {"y": None}])
    reply = await cloud.call("PATCH", f"{V3}/users/{made['id']}", admin, json={"user": {"email": "c@d", "z": 1}})
    assert reply.json()["user"]["email"] == "c@d"
    shown = (await cloud.call("GET", f"{V3}/users/{made['id']}", admin)).json()["user"]
    assert (shown["email"], shown["x"], shown["z"]) == ("c@d", [1, {"y": None}], 1)
    assert "password" not in shown
    assert "password_hash" not in shown


async def test_kept_attributes_cannot_pose_as_ours(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    made = await cloud.made("/users", admin, {"user": {"name": "u", "id": "mine", "links": {}, "auth_generation": 7}})
    assert made["id"] != "mine"
    assert made["links"]["self"].endswith(made["id"])
    assert (await cloud.log_in("u", "")).status_code == 401


async def test_four_byte_characters_survive(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    name = "🦜" * 64
    made = await cloud.made("/projects", admin, {"project": {"name": name, "description": "\U0001d538\U0010ffff"}})
    shown = (await cloud.call("GET", f"{V3}/projects/{made['id']}", admin)).json()["project"]
    assert (shown["name"], shown["description"]) == (name, "\U0001d538\U0010ffff")


async def test_names_are_as_long_as_keystones(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    for path, key, longest in (("/projects", "project", 64), ("/domains", "domain", 64), ("/users", "user", 255)):
        made = await cloud.made(path, admin, {key: {"name": "x" * longest}})
        assert await status(cloud, "POST", path, admin, {key: {"name": "y" * (longest + 1)}}) == 400
        longer = {key: {"name": "y" * (longest + 1)}}
        assert await status(cloud, "PATCH", f"{path}/{made['id']}", admin, longer) == 400


async def test_tags_of_a_project_come_and_go(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    _, project_id, member = await cloud.a_member(admin)
    path = f"/projects/{project_id}/tags"

    async def tags(token: str = admin) -> list[str]:
        return list((await cloud.call("GET", V3 + path, token)).json()["tags"])

    assert await status(cloud, "PUT", f"{path}/blue", admin) == 201
    assert await status(cloud, "PUT", f"{path}/blue", admin) == 201
    assert await tags(member) == ["blue"]
    for method in ("GET", "HEAD"):
        assert await status(cloud, method, f"{path}/blue", member) == 204
        assert await status(cloud, method, f"{path}/red", member) == 404
    assert await status(cloud, "PUT", path, admin, {"tags": ["a", "b", "a"]}) == 200
    assert await tags() == ["a", "b"]
    assert await status(cloud, "DELETE", f"{path}/a", admin) == 204
    assert await status(cloud, "DELETE", f"{path}/a", admin) == 404
    assert await status(cloud, "PUT", f"{path}/with,comma", admin) == 400
    assert await status(cloud, "PUT", path, admin, {"tags": [str(n) for n in range(81)]}) == 400
    assert await status(cloud, "PUT", path, member, {"tags": []}) == 403
    assert await status(cloud, "PUT", path, admin, {"tags": [str(n) for n in range(80)]}) == 200
    assert await status(cloud, "PUT", f"{path}/80", admin) == 400
    assert await status(cloud, "DELETE", path, admin) == 204
    assert await tags() == []


async def test_a_regions_id_may_be_in_the_url(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    assert await status(cloud, "PUT", "/regions/R7", admin, {"region": {"description": "seventh"}}) == 201
    shown = (await cloud.call("GET", f"{V3}/regions/R7", admin)).json()["region"]
    assert (shown["id"], shown["description"]) == ("R7", "seventh")
    assert await status(cloud, "PUT", "/regions/R7", admin, {"region": {}}) == 409
    assert await status(cloud, "PUT", "/regions/R8", admin, {"region": {"id": "R9"}}) == 400


async def test_a_domain_goes_only_when_disabled_and_takes_everything_with_it(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    domain_id = (await cloud.made("/domains", admin, {"domain": {"name": "d"}}))["id"]
    user_id = await cloud.a_user(admin, "u", domain_id=domain_id)
    project_id = await cloud.a_project(admin, "p", domain_id=domain_id)
    await cloud.grant(admin, user_id, f"projects/{project_id}", "member")
    assert await status(cloud, "DELETE", f"/domains/{domain_id}", admin) == 403
    assert await status(cloud, "PATCH", f"/domains/{domain_id}", admin, {"domain": {"enabled": False}}) == 200
    assert await status(cloud, "DELETE", f"/domains/{domain_id}", admin) == 204
    for path in (f"/domains/{domain_id}", f"/users/{user_id}", f"/projects/{project_id}"):
        assert await status(cloud, "GET", path, admin) == 404
    left = (await cloud.call("GET", f"{V3}/role_assignments?user.id={user_id}", admin)).json()
    assert left["role_assignments"] == []
    assert await status(cloud, "DELETE", "/domains/default", admin) == 403


async def test_projects_nest_and_only_leaves_go(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    top = await cloud.a_project(admin, "top")
    child = await cloud.a_project(admin, "child", parent_id=top)
    assert await status(cloud, "DELETE", f"/projects/{top}", admin) == 403
    assert await status(cloud, "DELETE", f"/projects/{child}", admin) == 204
    assert await status(cloud, "DELETE", f"/projects/{child}", admin) == 404
    assert await status(cloud, "DELETE", f"/projects/{top}", admin) == 204
    assert await status(cloud, "POST", "/projects", admin, {"project": {"name": "x", "parent_id": "gone"}}) == 404
    assert await status(cloud, "POST", "/projects", admin, {"project": {"name": "x", "is_domain": True}}) == 400


async def test_lists_page_by_marker_and_link_to_the_next(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    made = {await cloud.a_user(admin, f"u{i}", None) for i in range(5)}
    url, seen = f"{V3}/users?limit=2", []
    while url:
        body = (await cloud.call("GET", url, admin)).json()
        assert len(body["users"]) <= 2
        seen += [user["id"] for user in body["users"]]
        url = body["links"]["next"]
    assert len(seen) == len(set(seen)) == 7
    assert made < set(seen)
    assert await status(cloud, "GET", "/users?marker=unknown", admin) == 400
    assert await status(cloud, "GET", "/users?limit=-1", admin) == 400
    assert await status(cloud, "GET", "/users?limit=many", admin) == 400
    assert len((await cloud.call("GET", f"{V3}/users?limit=5000", admin)).json()["users"]) == 7


async def test_grants_on_projects_domains_and_the_system(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id, project_id = await cloud.a_user(admin), await cloud.a_project(admin)
    group_id = (await cloud.made("/groups", admin, {"group": {"name": "g"}}))["id"]
    role_id = await cloud.role(admin, "member")
    for place in (f"/projects/{project_id}", "/domains/default", "/system"):
        for actor in (f"/users/{user_id}", f"/groups/{group_id}"):
            one = f"{place}{actor}/roles/{role_id}"
            assert await status(cloud, "HEAD", one, admin) == 404
            assert await status(cloud, "DELETE", one, admin) == 404
            assert await status(cloud, "PUT", one, admin) == 204
            assert await status(cloud, "PUT", one, admin) == 204
            assert await status(cloud, "HEAD", one, admin) == 204
            assert await status(cloud, "GET", one, admin) == 204
            listed = (await cloud.call("GET", f"{V3}{place}{actor}/roles", admin)).json()["roles"]
            assert [role["id"] for role in listed] == [role_id]
            assert await status(cloud, "DELETE", one, admin) == 204
            assert await status(cloud, "HEAD", one, admin) == 404
            assert await status(cloud, "PUT", f"{place}{actor}/roles/unknown", admin) == 404
    assert await status(cloud, "PUT", f"/projects/unknown/users/{user_id}/roles/{role_id}", admin) == 404
    assert await status(cloud, "PUT", f"/projects/{project_id}/users/unknown/roles/{role_id}", admin) == 404


async def test_assignments_are_listed_plain_effective_and_named(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id, project_id = await cloud.a_user(admin), await cloud.a_project(admin)
    group_id = (await cloud.made("/groups", admin, {"group": {"name": "g"}}))["id"]
    member, reader = await cloud.role(admin, "member"), await cloud.role(admin, "reader")
    assert await status(cloud, "PUT", f"/groups/{group_id}/users/{user_id}", admin) == 204
    assert await status(cloud, "PUT", f"/projects/{project_id}/groups/{group_id}/roles/{member}", admin) == 204

    async def listed(query: str) -> list[dict[str, Any]]:
        reply = await cloud.call("GET", f"{V3}/role_assignments?{query}", admin)
        assert reply.status_code == 200, reply.text
        return list(reply.json()["role_assignments"])

    assert await listed(f"user.id={user_id}") == []
    (plain,) = await listed(f"group.id={group_id}")
    assert plain["role"] == {"id": member}
    assert plain["scope"] == {"project": {"id": project_id}}
    effective = await listed(f"user.id={user_id}&effective")
    assert {item["role"]["id"] for item in effective} == {member, reader}
    assert all(item["links"]["membership"].endswith(f"/groups/{group_id}/users/{user_id}") for item in effective)
    (implied,) = await listed(f"user.id={user_id}&effective=true&role.id={reader}&include_names=1")
    assert implied["role"] == {"id": reader, "name": "reader"}
    assert implied["user"] == {"id": user_id, "name": "u", "domain": {"id": "default", "name": "Default"}}
    assert implied["scope"]["project"]["name"] == "p"
    assert implied["links"]["prior_role"].endswith(f"/roles/{member}/implies/{reader}")
    (system,) = await listed("scope.system=all&include_names")
    assert (system["user"]["name"], system["scope"]) == ("admin", {"system": {"all": True}})
    top = await cloud.a_project(admin, "below", parent_id=project_id)
    await cloud.grant(admin, user_id, f"projects/{top}", "reader")
    assert len(await listed(f"scope.project.id={project_id}&include_subtree")) == 2
    assert await status(cloud, "GET", f"/role_assignments?user.id={user_id}&group.id={group_id}", admin) == 400


async def test_pages_of_assignments_hold_each_once(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id, project_id = await cloud.a_user(admin), await cloud.a_project(admin)
    for role in ("admin", "manager", "member", "reader"):
        await cloud.grant(admin, user_id, f"projects/{project_id}", role)
    url, seen = f"{V3}/role_assignments?limit=3", []
    while url:
        body = (await cloud.call("GET", url, admin)).json()
        seen += [item["links"]["assignment"] for item in body["role_assignments"]]
        url = body["links"]["next"]
    assert len(seen) == len(set(seen)) == 7


async def test_implied_roles_count_at_once_and_admin_is_never_implied(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    _, _, token = await cloud.a_member(admin, role="reader")
    reader, service = await cloud.role(admin, "reader"), await cloud.role(admin, "service")
    top = await cloud.role(admin, "admin")
    one = f"/roles/{reader}/implies/{service}"
    assert await status(cloud, "GET", one, admin) == 404
    reply = await cloud.call("PUT", V3 + one, admin)
    assert reply.status_code == 201
    assert reply.json()["role_inference"]["implies"]["id"] == service
    assert await status(cloud, "HEAD", one, admin) == 204
    shown = await cloud.call("GET", f"{V3}/auth/tokens", token, headers={"X-Subject-Token": token})
    assert [role["name"] for role in shown.json()["token"]["roles"]] == ["reader", "service"]
    assert await status(cloud, "PUT", f"/roles/{reader}/implies/{top}", admin) == 403
    assert await status(cloud, "DELETE", one, admin) == 204
    assert await status(cloud, "DELETE", one, admin) == 404
    rules = (await cloud.call("GET", f"{V3}/role_inferences", admin)).json()["role_inferences"]
    assert {rule["prior_role"]["name"] for rule in rules} == {"admin", "manager", "member"}


async def test_what_members_may_see_of_identity(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id, project_id, token = await cloud.a_member(admin)
    other_user, other_project, _ = await cloud.a_member(admin, "other")
    allowed = (
        f"/users/{user_id}",
        f"/users/{user_id}/projects",
        f"/users/{user_id}/groups",
        f"/projects/{project_id}",
        "/domains/default",
        "/regions",
        "/auth/catalog",
        "/auth/projects",
        "/auth/domains",
        "/auth/system",
    )
    for path in allowed:
        assert await status(cloud, "GET", path, token) == 200, path
    refused = (
        "/users",
        "/projects",
        "/domains",
        "/roles",
        "/groups",
        "/services",
        "/endpoints",
        "/role_assignments",
        f"/users/{other_user}",
        "/users/unknown",
        f"/projects/{other_project}",
        f"/users/{other_user}/projects",
    )
    for path in refused:
        assert await status(cloud, "GET", path, token) == 403, path
    assert await status(cloud, "PATCH", f"/users/{user_id}", token, {"user": {"enabled": True}}) == 403


async def test_system_readers_see_all_and_change_nothing(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id = await cloud.a_user(admin)
    await cloud.grant(admin, user_id, "system", "reader")
    token = await cloud.token("u", "pw", {"system": {"all": True}})
    for path in ("/users", "/projects", "/domains", "/roles", "/services", "/endpoints", "/role_assignments"):
        assert await status(cloud, "GET", path, token) == 200, path
    assert await status(cloud, "POST", "/users", token, {"user": {"name": "x"}}) == 403
    assert await status(cloud, "DELETE", f"/users/{user_id}", token) == 403


async def test_a_domains_manager_runs_the_domain_and_nothing_else(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    domain_id = (await cloud.made("/domains", admin, {"domain": {"name": "d"}}))["id"]
    boss = await cloud.a_user(admin, "boss", domain_id=domain_id)
    await cloud.grant(admin, boss, f"domains/{domain_id}", "manager")
    token = await cloud.token("boss", "pw", {"domain": {"id": domain_id}}, domain=domain_id)
    project_id, user_id = await cloud.a_project(token, "p"), await cloud.a_user(token, "u")
    shown = (await cloud.call("GET", f"{V3}/users", token)).json()["users"]
    assert {user["name"] for user in shown} == {"boss", "u"}
    assert {user["domain_id"] for user in shown} == {domain_id}
    roles = {name: await cloud.role(admin, name) for name in ("admin", "member", "service")}
    place = f"/projects/{project_id}/users/{user_id}/roles"
    assert await status(cloud, "PUT", f"{place}/{roles['member']}", token) == 204
    assert await status(cloud, "PUT", f"{place}/{roles['admin']}", token) == 403
    assert await status(cloud, "PUT", f"{place}/{roles['service']}", token) == 403
    foreign = cloud.founded.demo_project_id
    assert await status(cloud, "PUT", f"/projects/{foreign}/users/{user_id}/roles/{roles['member']}", token) == 403
    stranger = cloud.founded.demo_user_id
    assert await status(cloud, "PUT", f"/projects/{project_id}/users/{stranger}/roles/{roles['member']}", token) == 403
    assert await status(cloud, "PUT", f"/system/users/{user_id}/roles/{roles['member']}", token) == 403
    assert await status(cloud, "POST", "/users", token, {"user": {"name": "x", "domain_id": "default"}}) == 403
    assert await status(cloud, "PATCH", f"/users/{stranger}", token, {"user": {"password": "x"}}) == 403
    assert await status(cloud, "PATCH", f"/domains/{domain_id}", token, {"domain": {"name": "x"}}) == 403


async def test_a_domains_manager_cannot_become_admin_through_an_admin_of_the_domain(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    domain_id = (await cloud.made("/domains", admin, {"domain": {"name": "d"}}))["id"]
    boss = await cloud.a_user(admin, "boss", domain_id=domain_id)
    await cloud.grant(admin, boss, f"domains/{domain_id}", "manager")
    root = await cloud.a_user(admin, "root", domain_id=domain_id)
    await cloud.grant(admin, root, f"projects/{cloud.founded.admin_project_id}", "admin")
    group_id = (await cloud.made("/groups", admin, {"group": {"name": "admins", "domain_id": domain_id}}))["id"]
    role_id = await cloud.role(admin, "admin")
    assert await status(cloud, "PUT", f"/system/groups/{group_id}/roles/{role_id}", admin) == 204
    token = await cloud.token("boss", "pw", {"domain": {"id": domain_id}}, domain=domain_id)
    assert await status(cloud, "PATCH", f"/users/{root}", token, {"user": {"password": "x"}}) == 403
    assert await status(cloud, "PUT", f"/groups/{group_id}/users/{boss}", token) == 403


async def test_the_catalog_follows_its_rows(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    service = await cloud.made("/services", admin, {"service": {"type": "object-store", "name": "swift"}})
    body = {"service_id": service["id"], "interface": "public", "url": "http://s/AUTH_$(project_id)s", "region": "R2"}
    endpoint = await cloud.made("/endpoints", admin, {"endpoint": body})
    assert endpoint["region_id"] == "R2"

    async def shown() -> dict[str, Any]:
        catalog = (await cloud.call("GET", f"{V3}/auth/catalog", admin)).json()["catalog"]
        return {entry["type"]: entry for entry in catalog}

    url = (await shown())["object-store"]["endpoints"][0]["url"]
    assert url == f"http://s/AUTH_{cloud.founded.admin_project_id}"
    in_token = (await cloud.log_in("admin", PASSWORD, on_project(cloud.founded.admin_project_id))).json()["token"]
    assert "object-store" in {entry["type"] for entry in in_token["catalog"]}
    path = f"/endpoints/{endpoint['id']}"
    assert await status(cloud, "DELETE", "/regions/R2", admin) == 403
    assert await status(cloud, "PATCH", path, admin, {"endpoint": {"enabled": False}}) == 200
    assert "object-store" not in await shown()
    assert await status(cloud, "DELETE", f"/services/{service['id']}", admin) == 204
    assert await status(cloud, "GET", path, admin) == 404
    assert await status(cloud, "DELETE", "/regions/R2", admin) == 204


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "http://a b", "", "x"])
async def test_endpoints_are_urls_that_clients_can_follow(cloud: ApiCloud, url: str) -> None:
    admin = await cloud.admin()
    service = (await cloud.call("GET", f"{V3}/services", admin)).json()["services"][0]
    body = {"endpoint": {"service_id": service["id"], "interface": "public", "url": url}}
    assert await status(cloud, "POST", "/endpoints", admin, body) == 400


async def test_unscoped_tokens_find_their_way_but_have_no_catalog(cloud: ApiCloud) -> None:
    token = await cloud.token("demo", "secret-of-demo", "unscoped")
    projects = (await cloud.call("GET", f"{V3}/auth/projects", token)).json()["projects"]
    assert [project["name"] for project in projects] == ["demo"]
    assert (await cloud.call("GET", f"{V3}/auth/system", token)).json()["system"] == []
    assert await status(cloud, "GET", "/auth/catalog", token) == 403


async def test_founding_twice_changes_nothing(cloud: ApiCloud) -> None:
    from controller.identity import bootstrap
    from controller.identity.api.routes import SERVICE

    admin = await cloud.admin()
    before = [(await cloud.call("GET", f"{V3}/{key}", admin)).json() for key in ("users", "roles", "endpoints")]
    plan = bootstrap.plan(cloud.cloud.world.entropy, "RegionOne", 0.0, admin_password_hash="x", demo_password_hash="y")
    assert await cloud.cloud.db.write(bootstrap.found, plan, (SERVICE,)) == cloud.founded
    assert before == [(await cloud.call("GET", f"{V3}/{key}", admin)).json() for key in ("users", "roles", "endpoints")]
