"""Tokens: who gets one, what it opens, and what ends it."""

from pathlib import Path

import httpx
import pytest

from controller.db.tx import DatabaseDown
from controller.identity.keys import Keyring
from tests.api.clouds import PASSWORD, ApiCloud, api_cloud, on_project
from tests.databases import AnyDatabase

TOKENS = "/identity/v3/auth/tokens"


async def validate(cloud: ApiCloud, token: str, caller: str) -> httpx.Response:
    return await cloud.call("GET", TOKENS, caller, headers={"X-Subject-Token": token})


async def works(cloud: ApiCloud, token: str) -> bool:
    """Whether the token opens anything at all."""
    status = (await cloud.call("GET", "/identity/v3/auth/projects", token)).status_code
    assert status in (200, 401)
    return status == 200


async def test_password_login_gives_a_token_that_says_who_and_where(cloud: ApiCloud) -> None:
    reply = await cloud.log_in("admin", PASSWORD, on_project(cloud.founded.admin_project_id))
    assert reply.status_code == 201
    token = reply.json()["token"]
    assert token["user"]["name"] == "admin"
    assert token["user"]["domain"] == {"id": "default", "name": "Default"}
    assert token["project"]["name"] == "admin"
    assert [role["name"] for role in token["roles"]] == ["admin", "manager", "member", "reader"]
    assert token["methods"] == ["password"]
    assert token["issued_at"] == "2023-11-14T22:13:20.000000Z"
    assert token["expires_at"] == "2023-11-14T23:13:20.000000Z"
    assert {entry["type"] for entry in token["catalog"]} == {"identity"}
    urls = {endpoint["interface"]: endpoint["url"] for endpoint in token["catalog"][0]["endpoints"]}
    assert urls == dict.fromkeys(("public", "internal", "admin"), "http://127.0.0.1:5000/identity")
    assert len(reply.headers["x-subject-token"]) < 256


async def test_names_of_users_domains_and_projects_compare_without_case(cloud: ApiCloud) -> None:
    user = {"name": "ADMIN", "password": PASSWORD, "domain": {"name": "dEFAULT"}}
    scope = {"project": {"name": "Admin", "domain": {"name": "default"}}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    reply = await cloud.http.post(TOKENS, json=body)
    assert reply.status_code == 201
    assert reply.json()["token"]["project"]["name"] == "admin"


@pytest.mark.parametrize(
    ("name", "password", "scope"),
    [
        ("admin", "wrong", None),
        ("admin", "", None),
        ("admin", "x" * 4000, None),
        ("nobody", PASSWORD, None),
        ("admin", PASSWORD, on_project("no-such-project")),
        ("admin", PASSWORD, {"project": {"name": "nothing", "domain": {"id": "default"}}}),
        ("admin", PASSWORD, {"project": {"name": "admin", "domain": {"id": "elsewhere"}}}),
        ("admin", PASSWORD, {"domain": {"id": "default"}}),
        ("demo", "secret-of-demo", {"system": {"all": True}}),
    ],
)
async def test_every_refused_login_says_the_same(
    cloud: ApiCloud, name: str, password: str, scope: dict[str, object] | None
) -> None:
    reply = await cloud.log_in(name, password, scope)
    assert reply.status_code == 401
    assert reply.json()["error"]["message"] == "The request you have made requires authentication."
    assert reply.headers["www-authenticate"] == 'Keystone uri="http://127.0.0.1:5000/identity"'


async def test_without_scope_the_default_project_is_tried_and_unscoped_can_be_demanded(cloud: ApiCloud) -> None:
    scoped = (await cloud.log_in("admin", PASSWORD)).json()["token"]
    assert scoped["project"]["name"] == "admin"
    for scope in ("unscoped", {"unscoped": {}}):
        token = (await cloud.log_in("admin", PASSWORD, scope)).json()["token"]
        assert not {"project", "roles", "catalog"} & token.keys()


async def test_a_default_project_without_a_role_gives_an_unscoped_token(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    await cloud.a_user(admin, "u", default_project_id=cloud.founded.admin_project_id)
    assert "project" not in (await cloud.log_in("u", "pw")).json()["token"]


async def test_system_and_domain_scopes(cloud: ApiCloud) -> None:
    system = (await cloud.log_in("admin", PASSWORD, {"system": {"all": True}})).json()["token"]
    assert system["system"] == {"all": True}
    assert system["catalog"]
    admin = await cloud.admin()
    user_id = await cloud.a_user(admin, "u")
    await cloud.grant(admin, user_id, "domains/default", "manager")
    token = (await cloud.log_in("u", "pw", {"domain": {"name": "Default"}})).json()["token"]
    assert token["domain"] == {"id": "default", "name": "Default"}
    assert [role["name"] for role in token["roles"]] == ["manager", "member", "reader"]


async def test_a_token_from_a_token_lives_no_longer_and_keeps_the_chain(cloud: ApiCloud) -> None:
    first = await cloud.log_in("admin", PASSWORD, "unscoped")
    cloud.clock.time += 1800
    identity = {"methods": ["token"], "token": {"id": first.headers["x-subject-token"]}}
    scope = on_project(cloud.founded.admin_project_id)
    second = await cloud.http.post(TOKENS, json={"auth": {"identity": identity, "scope": scope}})
    assert second.status_code == 201
    old, new = first.json()["token"], second.json()["token"]
    assert new["expires_at"] == old["expires_at"]
    assert new["methods"] == ["password", "token"]
    assert new["audit_ids"][1] == old["audit_ids"][0]


async def test_logging_in_with_a_token_that_does_not_hold_is_404_as_in_keystone(cloud: ApiCloud) -> None:
    """401 would have clients log in again, with the same token."""
    admin = await cloud.admin()
    _, _, member = await cloud.a_member(admin)
    await cloud.call("DELETE", TOKENS, admin, headers={"X-Subject-Token": member})
    for token in (member, "never-one"):
        identity = {"methods": ["token"], "token": {"id": token}}
        reply = await cloud.http.post(TOKENS, json={"auth": {"identity": identity, "scope": "unscoped"}})
        assert (reply.status_code, reply.json()["error"]["title"]) == (404, "Not Found")


async def test_validation_shows_the_token_and_head_has_no_body(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    _, _, member = await cloud.a_member(admin)
    shown = await validate(cloud, member, admin)
    assert shown.status_code == 200
    assert shown.headers["x-subject-token"] == member
    assert shown.json()["token"]["user"]["name"] == "u"
    assert (await validate(cloud, member, admin)).content == shown.content
    assert (await validate(cloud, member, member)).status_code == 200
    assert (await validate(cloud, admin, member)).status_code == 403
    head = await cloud.call("HEAD", TOKENS, admin, headers={"X-Subject-Token": member})
    assert (head.status_code, head.content) == (200, b"")
    assert (
        "catalog"
        not in (await cloud.call("GET", f"{TOKENS}?nocatalog", admin, headers={"X-Subject-Token": member})).json()[
            "token"
        ]
    )
    assert (await validate(cloud, "garbage", admin)).status_code == 404


async def test_every_altered_byte_and_every_cut_is_refused(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    for place in range(len(token)):
        for other in ("A", "B", "-", "="):
            if token[place] != other:
                assert not await works(cloud, token[:place] + other + token[place + 1 :]), place
        assert not await works(cloud, token[:place]) or place == 0
    assert not await works(cloud, token + "=")
    assert not await works(cloud, token + "A")
    assert not await works(cloud, " " + token + "\t!")
    assert await works(cloud, token)


async def test_a_token_ends_with_its_time(cloud: ApiCloud) -> None:
    token = await cloud.admin()
    cloud.clock.time += 3599
    assert await works(cloud, token)
    cloud.clock.time += 1
    assert not await works(cloud, token)


async def test_a_token_from_the_future_is_refused_beyond_a_minute(cloud: ApiCloud) -> None:
    cloud.clock.time += 61
    token = await cloud.admin()
    cloud.clock.time -= 61
    assert not await works(cloud, token)
    cloud.clock.time += 1
    assert await works(cloud, token)


async def test_revoking_ends_this_token_only(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    _, project_id, member = await cloud.a_member(admin)
    other = await cloud.token("u", "pw", on_project(project_id))
    reply = await cloud.call("DELETE", TOKENS, member, headers={"X-Subject-Token": member})
    assert (reply.status_code, reply.content) == (204, b"")
    assert not await works(cloud, member)
    assert await works(cloud, other)
    assert (await validate(cloud, member, admin)).status_code == 404


async def test_what_ends_a_members_token(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    identity = "/identity/v3"

    async def after(name: str, method: str, path: str, body: object = None) -> bool:
        """Whether a fresh member's token still works after a change."""
        user_id, project_id, token = await cloud.a_member(admin, name)
        assert await works(cloud, token)
        url = identity + path.format(user=user_id, project=project_id, member=await cloud.role(admin, "member"))
        reply = await cloud.call(method, url, admin, json=body)
        assert reply.status_code in (200, 204), reply.text
        return await works(cloud, token)

    assert not await after("a", "PATCH", "/users/{user}", {"user": {"enabled": False}})
    assert not await after("b", "PATCH", "/users/{user}", {"user": {"password": "new"}})
    assert not await after("c", "DELETE", "/users/{user}")
    assert not await after("d", "PATCH", "/projects/{project}", {"project": {"enabled": False}})
    assert not await after("e", "DELETE", "/projects/{project}")
    assert not await after("f", "DELETE", "/projects/{project}/users/{user}/roles/{member}")
    assert await after("g", "PATCH", "/users/{user}", {"user": {"name": "renamed"}})


async def test_enabling_again_does_not_revive_a_token(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id, _, token = await cloud.a_member(admin)
    for enabled in (False, True):
        await cloud.call("PATCH", f"/identity/v3/users/{user_id}", admin, json={"user": {"enabled": enabled}})
        assert not await works(cloud, token)


async def test_disabling_a_domain_ends_its_users_and_its_projects_tokens(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    domain_id = (await cloud.made("/domains", admin, {"domain": {"name": "d"}}))["id"]
    user_id = await cloud.a_user(admin, "u", domain_id=domain_id)
    stranger_id = await cloud.a_user(admin, "s")
    project_id = await cloud.a_project(admin, "p", domain_id=domain_id)
    for person in (user_id, stranger_id):
        await cloud.grant(admin, person, f"projects/{project_id}", "reader")
    own = await cloud.token("u", "pw", on_project(project_id), domain=domain_id)
    guest = await cloud.token("s", "pw", on_project(project_id))
    await cloud.call("PATCH", f"/identity/v3/domains/{domain_id}", admin, json={"domain": {"enabled": False}})
    assert not await works(cloud, own)
    assert not await works(cloud, guest)


async def test_roles_are_todays_not_those_at_issue(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id, project_id, token = await cloud.a_member(admin, role="admin")
    assert (await cloud.call("GET", "/identity/v3/users", token)).status_code == 200
    await cloud.grant(admin, user_id, f"projects/{project_id}", "reader")
    await cloud.grant(admin, user_id, f"projects/{project_id}", "admin", method="DELETE")
    assert (await cloud.call("GET", "/identity/v3/users", token)).status_code == 403
    shown = (await validate(cloud, token, admin)).json()["token"]
    assert [role["name"] for role in shown["roles"]] == ["reader"]


async def test_group_roles_count_and_end_with_membership(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    group_id = (await cloud.made("/groups", admin, {"group": {"name": "g"}}))["id"]
    user_id, project_id = await cloud.a_user(admin), await cloud.a_project(admin)
    place = f"/identity/v3/projects/{project_id}/groups/{group_id}/roles/{await cloud.role(admin, 'member')}"
    assert (await cloud.call("PUT", place, admin)).status_code == 204
    member = f"/identity/v3/groups/{group_id}/users/{user_id}"
    assert (await cloud.call("PUT", member, admin)).status_code == 204
    token = await cloud.token("u", "pw", on_project(project_id))
    assert await works(cloud, token)
    assert (await cloud.call("DELETE", member, admin)).status_code == 204
    assert not await works(cloud, token)


async def test_whoever_changes_a_password_this_way_knows_the_old_one(cloud: ApiCloud) -> None:
    admin = await cloud.admin()
    user_id, project_id, token = await cloud.a_member(admin)
    _, _, stranger = await cloud.a_member(admin, "stranger")
    path = f"/identity/v3/users/{user_id}/password"
    wrong = {"user": {"original_password": "guess", "password": "next"}}
    for known in (token, admin):
        assert (await cloud.call("POST", path, known, json=wrong)).status_code == 401
    right = {"user": {"original_password": "pw", "password": "next"}}
    assert (await cloud.call("POST", path, stranger, json=right)).status_code == 403
    assert (await cloud.call("POST", path, token, json=right)).status_code == 204
    assert not await works(cloud, token)
    assert (await cloud.log_in("u", "pw")).status_code == 401
    assert (await cloud.log_in("u", "next", on_project(project_id))).status_code == 201
    again = {"user": {"original_password": "next", "password": "third"}}
    assert (await cloud.call("POST", path, admin, json=again)).status_code == 204


async def test_another_controllers_change_counts_within_half_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: AnyDatabase
) -> None:
    async with api_cloud(tmp_path, database=database) as here:
        admin = await here.admin()
        user_id, _, token = await here.a_member(admin)
        assert await works(here, token)
        monkeypatch.setattr(here.cloud.tokens, "changed", lambda: None)  # As if it were written elsewhere.
        await here.call("PATCH", f"/identity/v3/users/{user_id}", admin, json={"user": {"enabled": False}})
        here.cloud.tokens._read_at -= 0.501
        assert not await works(here, token)


async def test_no_token_is_accepted_when_revocations_cannot_be_read_for_a_second(
    cloud: ApiCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await cloud.admin()
    assert await works(cloud, token)

    async def fails(*_: object) -> int:
        raise DatabaseDown("gone")

    monkeypatch.setattr(cloud.cloud.tokens, "_db", type("Broken", (), {"read": staticmethod(fails)})())
    cloud.cloud.tokens._read_at -= 0.6
    assert await works(cloud, token)
    cloud.cloud.tokens._read_at -= 0.5
    reply = await cloud.call("GET", "/identity/v3/auth/projects", token)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


async def test_keys_rotate_and_old_tokens_live_until_their_key_is_dropped(cloud: ApiCloud, tmp_path: Path) -> None:
    folder = tmp_path / "fernet"
    first = await cloud.admin()
    operator = Keyring(folder)
    operator.rotate()
    cloud.cloud.tokens.reload_keys()
    assert await works(cloud, first)
    second = await cloud.admin()
    operator.rotate()
    cloud.cloud.tokens.reload_keys()
    assert not await works(cloud, first)
    assert await works(cloud, second)
    assert len(list(folder.iterdir())) == 3
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
