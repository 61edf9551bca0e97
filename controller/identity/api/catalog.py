"""/services, /endpoints and /regions: the catalog's rows."""

from typing import Any

from controller.db.tables.identity import catalog_endpoint, catalog_region, catalog_service
from controller.errors import Invalid
from controller.http.filters import Filter
from controller.http.op import Call
from controller.identity import catalog
from controller.identity.api import asking, views
from controller.identity.api.bodies import (
    EndpointCreate,
    EndpointUpdate,
    RegionCreate,
    RegionUpdate,
    ServiceCreate,
    ServiceUpdate,
    given,
    opened,
)
from controller.identity.model import CatalogService, Endpoint, Region

SERVICE_FILTERS = {"name": Filter(catalog_service.c.name), "type": Filter(catalog_service.c.type)}
ENDPOINT_FILTERS = {
    "interface": Filter(catalog_endpoint.c.interface),
    "service_id": Filter(catalog_endpoint.c.service_id),
    "region": Filter(catalog_endpoint.c.region_id),
    "region_id": Filter(catalog_endpoint.c.region_id),
}
REGION_FILTERS = {"parent_region_id": Filter(catalog_region.c.parent_region_id)}


async def services(call: Call) -> dict[str, Any]:
    """GET /services."""
    return await asking.page_of_all(call, CatalogService, "services", SERVICE_FILTERS)


async def create_service(call: Call) -> dict[str, Any]:
    """POST /services."""
    wanted, extra = opened(ServiceCreate, call.body.service, "service")
    made = CatalogService(
        id=asking.new_id(call),
        type=wanted.type,
        name=wanted.name,
        description=wanted.description or "",
        enabled=wanted.enabled,
        extra=extra,
    )
    return {"service": views.view(call, await asking.write(call, catalog.create_service, made))}


async def show_service(call: Call) -> dict[str, Any]:
    """GET /services/{service_id}."""
    found = await asking.seen(call, CatalogService, call.params["service_id"], "identity:get_service")
    return {"service": views.view(call, found)}


async def update_service(call: Call) -> dict[str, Any]:
    """PATCH /services/{service_id}."""
    changes, extra = opened(ServiceUpdate, call.body.service, "service")
    found = await asking.seen(call, CatalogService, call.params["service_id"], "identity:update_service")
    values = asking.changed_columns(found, given(changes), extra)
    return {"service": views.view(call, await asking.write(call, catalog.update_service, found.id, values))}


async def delete_service(call: Call) -> None:
    """DELETE /services/{service_id}."""
    await asking.write(call, catalog.delete_service, call.params["service_id"])


async def endpoints(call: Call) -> dict[str, Any]:
    """GET /endpoints."""
    return await asking.page_of_all(call, Endpoint, "endpoints", ENDPOINT_FILTERS)


async def create_endpoint(call: Call) -> dict[str, Any]:
    """POST /endpoints."""
    wanted, extra = opened(EndpointCreate, call.body.endpoint, "endpoint")
    made = Endpoint(
        id=asking.new_id(call),
        service_id=wanted.service_id,
        region_id=wanted.region_id or wanted.region,
        interface=wanted.interface,
        url=_url(wanted.url),
        enabled=wanted.enabled,
        extra=extra,
    )
    return {"endpoint": views.view(call, await asking.write(call, catalog.create_endpoint, made))}


async def show_endpoint(call: Call) -> dict[str, Any]:
    """GET /endpoints/{endpoint_id}."""
    found = await asking.seen(call, Endpoint, call.params["endpoint_id"], "identity:get_endpoint")
    return {"endpoint": views.view(call, found)}


async def update_endpoint(call: Call) -> dict[str, Any]:
    """PATCH /endpoints/{endpoint_id}."""
    changes, extra = opened(EndpointUpdate, call.body.endpoint, "endpoint")
    found = await asking.seen(call, Endpoint, call.params["endpoint_id"], "identity:update_endpoint")
    sent = given(changes)
    if "region" in sent:
        region = sent.pop("region")
        sent.setdefault("region_id", region)
    if "url" in sent:
        sent["url"] = _url(sent["url"])
    values = asking.changed_columns(found, sent, extra)
    return {"endpoint": views.view(call, await asking.write(call, catalog.update_endpoint, found.id, values))}


async def delete_endpoint(call: Call) -> None:
    """DELETE /endpoints/{endpoint_id}."""
    await asking.write(call, catalog.delete_endpoint, call.params["endpoint_id"])


def _url(url: str) -> str:
    """Clients follow what the catalog says, so it says only what they can follow."""
    if not url.startswith(("http://", "https://", "ws://", "wss://", "$(public_url)s")) or any(
        c.isspace() for c in url
    ):
        raise Invalid("Invalid input for 'endpoint.url': it is not a URL.")
    return url


async def regions(call: Call) -> dict[str, Any]:
    """GET /regions."""
    return await asking.page_of_all(call, Region, "regions", REGION_FILTERS)


async def create_region(call: Call) -> dict[str, Any]:
    """POST /regions."""
    return await _create_region(call, None)


async def put_region(call: Call) -> dict[str, Any]:
    """PUT /regions/{region_id}: a new one with that id."""
    return await _create_region(call, call.params["region_id"])


async def _create_region(call: Call, id: str | None) -> dict[str, Any]:
    wanted, extra = opened(RegionCreate, call.body.region if id is None else {"id": id, **call.body.region}, "region")
    if id is not None and wanted.id != id:
        raise Invalid("Invalid input for 'region.id': it is not the id in the URL.")
    made = Region(
        id=wanted.id or asking.new_id(call),
        description=wanted.description or "",
        parent_region_id=wanted.parent_region_id,
        extra=extra,
    )
    return {"region": views.view(call, await asking.write(call, catalog.create_region, made))}


async def show_region(call: Call) -> dict[str, Any]:
    """GET /regions/{region_id}."""
    found = await asking.seen(call, Region, call.params["region_id"], "identity:get_region")
    return {"region": views.view(call, found)}


async def update_region(call: Call) -> dict[str, Any]:
    """PATCH /regions/{region_id}."""
    changes, extra = opened(RegionUpdate, call.body.region, "region")
    found = await asking.seen(call, Region, call.params["region_id"], "identity:update_region")
    values = asking.changed_columns(found, given(changes), extra)
    return {"region": views.view(call, await asking.write(call, catalog.update_region, found.id, values))}


async def delete_region(call: Call) -> None:
    """DELETE /regions/{region_id}."""
    await asking.write(call, catalog.delete_region, call.params["region_id"])
