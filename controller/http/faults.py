"""Failures as each service's clients expect to read them. `why` is an extra key, which clients ignore."""

import html
from typing import Any, Final

import msgspec

from controller.errors import CloudError, OverQuota
from controller.http.op import Fault, Service

_JSON: Final = "application/json"
_encode = msgspec.json.Encoder().encode

_NOVA_KEYS: Final = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    406: "notAcceptable",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def fault_of(error: CloudError, service: Service | None) -> Fault:
    """An expected failure, with the status that this service gives it."""
    status = error.status
    if isinstance(error, OverQuota) and service is not None:
        status = service.over_quota_status
    return Fault(status=status, title=error.title, message=error.message, kind=type(error).__name__, why=error.why)


def internal(request_id: str) -> Fault:
    """Our bug: the user learns the request id, and nothing of our insides."""
    message = f"An unexpected error prevented the server from fulfilling your request ({request_id})."
    return Fault(status=500, title="Internal Server Error", message=message, kind="InternalError")


def nova(fault: Fault) -> tuple[bytes, str]:
    """Nova's and Cinder's envelope."""
    key = _NOVA_KEYS.get(fault.status, "computeFault")
    return _encode({key: _with_why({"code": fault.status, "message": fault.message}, fault)}), _JSON


def neutron(fault: Fault) -> tuple[bytes, str]:
    """Neutron's envelope; `type` is the failure's class."""
    inner = {"type": fault.kind, "message": fault.message, "detail": ""}
    return _encode({"NeutronError": _with_why(inner, fault)}), _JSON


def keystone(fault: Fault) -> tuple[bytes, str]:
    """Keystone's envelope."""
    inner = {"code": fault.status, "title": fault.title, "message": fault.message}
    return _encode({"error": _with_why(inner, fault)}), _JSON


def placement(fault: Fault) -> tuple[bytes, str]:
    """The API-WG's envelope, as Placement has it."""
    inner = {"status": fault.status, "title": fault.title, "detail": fault.message, "code": "placement.undefined_code"}
    return _encode({"errors": [_with_why(inner, fault)]}), _JSON


def glance(fault: Fault) -> tuple[bytes, str]:
    """Glance answers with a page of HTML: its client shows the text between the headings."""
    title, message = f"{fault.status} {fault.title}", html.escape(fault.message)
    page = (
        f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n"
        f"  <h1>{title}</h1>\n  {message}<br /><br />\n\n\n </body>\n</html>"
    )
    return page.encode(), "text/html; charset=UTF-8"


def _with_why(inner: dict[str, Any], fault: Fault) -> dict[str, Any]:
    return inner if fault.why is None else {**inner, "why": fault.why}
