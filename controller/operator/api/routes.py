"""Hostler's own API: what operators (and users, about their own requests) ask that OpenStack has no word for."""

from typing import Final

from controller.http import faults
from controller.http.op import Op, Service
from controller.http.policy import admin, authenticated
from controller.operator.api import bodies, hosts, image_cache, requests, status

SERVICE: Final = Service(
    name="operator",
    types=(),
    prefix="/operator/v1",
    policies={
        "operator:requests:show": authenticated,
        "operator:status:show": admin,
        "operator:hosts:list": admin,
        "operator:hosts:remove": admin,
        "operator:join_tokens:create": admin,
        "operator:image_cache:list": admin,
        "operator:image_cache:evict": admin,
        "operator:sagas:retry": admin,
        "operator:sagas:abandon": admin,
    },
    envelope=faults.keystone,
    ops=(
        Op("GET", "/requests/{request_id}", requests.show, policy="operator:requests:show"),
        Op("GET", "/status", status.show, policy="operator:status:show"),
        Op("GET", "/hosts", hosts.index, policy="operator:hosts:list"),
        Op("DELETE", "/hosts/{host_id}", hosts.remove, policy="operator:hosts:remove", status=204),
        Op("GET", "/image-cache", image_cache.index, policy="operator:image_cache:list"),
        Op(
            "POST",
            "/hosts/{host_id}/image-cache/evict",
            image_cache.evict,
            policy="operator:image_cache:evict",
            body=bodies.Evict,
        ),
        Op(
            "POST",
            "/join-tokens",
            hosts.create_token,
            policy="operator:join_tokens:create",
            body=bodies.NewToken,
            status=201,
        ),
        Op("POST", "/sagas/{saga_id}/retry", requests.retry, policy="operator:sagas:retry", status=204),
        Op(
            "POST",
            "/sagas/{saga_id}/abandon",
            requests.abandon,
            policy="operator:sagas:abandon",
            body=bodies.Abandon,
            status=204,
        ),
    ),
)
