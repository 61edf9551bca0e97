"""OpenAPI 3.1 from the tables, for `python -m controller openapi`. Nothing is written by hand, so nothing can differ.

OpenAPI has one operation a path and method: rows of other windows and actions become alternatives of one body.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from controller.http.op import PUBLIC, Op, Service

_PARAM: Final = re.compile(r"\{(\w+)\}")
_REFERENCE: Final = "#/components/schemas/{name}"


def document(services: Iterable[Service]) -> dict[str, Any]:
    """The whole API of one controller."""
    found = tuple(services)
    bodies = [op.body for service in found for op in service.ops if op.body is not None]
    schemas, components = msgspec.json.schema_components(bodies, ref_template=_REFERENCE)
    by_body = {id(body): schema for body, schema in zip(bodies, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for service in found:
        for op in service.ops:
            path = paths.setdefault(service.prefix + op.path or "/", {})
            _add(path.setdefault(op.method.lower(), _operation(service, op)), op, by_body.get(id(op.body)))
    token = {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hostler", "version": "1"},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": components, "securitySchemes": {"token": token}},
    }


def _operation(service: Service, op: Op) -> dict[str, Any]:
    names = _PARAM.findall(op.path)
    return {
        "tags": [service.name],
        "summary": (op.handler.__doc__ or "").strip().split("\n")[0],
        "parameters": [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names],
        "security": [] if op.policy == PUBLIC else [{"token": []}],
        "responses": {},
        "x-policies": [],
    }


def _add(operation: dict[str, Any], op: Op, schema: dict[str, Any] | None) -> None:
    """One more row of the same path and method."""
    operation["responses"].setdefault(str(op.status), {"description": "As the API reference says."})
    if op.policy not in operation["x-policies"]:
        operation["x-policies"].append(op.policy)
    if op.action is not None:
        value = schema if schema is not None else {}
        schema = {"type": "object", "properties": {op.action: value}, "required": [op.action]}
    if schema is None:
        return
    content = operation.setdefault("requestBody", {"content": {}})["content"]
    for media in op.media:
        alternatives = content.setdefault(media, {"schema": {"anyOf": []}})["schema"]["anyOf"]
        if schema not in alternatives:
            alternatives.append(schema)
