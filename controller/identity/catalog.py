"""Rules of the catalog. Transaction functions: ids are arguments."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from controller.db.tables.identity import catalog_endpoint, catalog_region
from controller.db.tx import Tx
from controller.errors import Forbidden, Invalid
from controller.identity import store
from controller.identity.model import CatalogService, Endpoint, Region


def create_service(tx: Tx, made: CatalogService) -> CatalogService:
    """Names are not unique."""
    return store.insert(tx, CatalogService, made)


def update_service(tx: Tx, service_id: str, values: Mapping[str, Any]) -> CatalogService:
    """Raises NotFound."""
    return store.update(tx, CatalogService, service_id, values)


def delete_service(tx: Tx, service_id: str) -> None:
    """With its endpoints. Raises NotFound."""
    store.delete(tx, CatalogService, service_id)
    tx.execute(sa.delete(catalog_endpoint).where(catalog_endpoint.c.service_id == service_id))


def create_endpoint(tx: Tx, made: Endpoint) -> Endpoint:
    """Raises Invalid for a service that is not there; an unknown region comes into being, as in Keystone."""
    _check_service(tx, made.service_id)
    _ensure_region(tx, made.region_id)
    return store.insert(tx, Endpoint, made)


def update_endpoint(tx: Tx, endpoint_id: str, values: Mapping[str, Any]) -> Endpoint:
    """Raises NotFound, Invalid."""
    if "service_id" in values:
        _check_service(tx, values["service_id"])
    _ensure_region(tx, values.get("region_id"))
    return store.update(tx, Endpoint, endpoint_id, values)


def delete_endpoint(tx: Tx, endpoint_id: str) -> None:
    """Raises NotFound."""
    store.delete(tx, Endpoint, endpoint_id)


def _check_service(tx: Tx, service_id: str) -> None:
    if store.find(tx, CatalogService, service_id) is None:
        raise Invalid(f"Could not find service: {service_id}.")


def _ensure_region(tx: Tx, region_id: str | None) -> None:
    if region_id is not None and store.find(tx, Region, region_id) is None:
        store.insert(tx, Region, Region(id=region_id, description="", parent_region_id=None, extra={}))


def create_region(tx: Tx, made: Region) -> Region:
    """Raises NotFound for the parent, Conflict when the id is taken."""
    if made.parent_region_id is not None:
        store.get(tx, Region, made.parent_region_id)
    if store.find(tx, Region, made.id) is not None:
        raise store.taken(Region, made.id)
    return store.insert(tx, Region, made)


def update_region(tx: Tx, region_id: str, values: Mapping[str, Any]) -> Region:
    """Raises NotFound; Forbidden for a region that would be its own ancestor."""
    above = values.get("parent_region_id")
    while above is not None:
        if above == region_id:
            raise Forbidden("A region cannot lie within itself.")
        above = store.get(tx, Region, above).parent_region_id
    return store.update(tx, Region, region_id, values)


def delete_region(tx: Tx, region_id: str) -> None:
    """Raises NotFound; Forbidden while endpoints or other regions are in it."""
    store.get(tx, Region, region_id)
    has_endpoints = store.exists(tx, Endpoint, catalog_endpoint.c.region_id == region_id)
    if has_endpoints or store.exists(tx, Region, catalog_region.c.parent_region_id == region_id):
        raise Forbidden(f"Unable to delete region {region_id} because it or its child regions have endpoints.")
    store.delete(tx, Region, region_id)
