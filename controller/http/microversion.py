"""Which version of an API a request speaks, and how the reply says so.

No header means the oldest version, never the newest. `OpenStack-API-Version` may name several services, others
are ignored. Source: the API-WG's microversion guideline, and what nova, cinder and placement do with it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from controller.errors import Invalid, NotAcceptable
from controller.http.op import Service, Version

_FORM: Final = re.compile(r"([1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
_HEADER: Final = "openstack-api-version"
_NOVA_HEADER: Final = "x-openstack-nova-api-version"
_NONE: Final[Version] = (0, 0)


class Negotiator:
    """The versions of one service."""

    def __init__(self, service: Service) -> None:
        self.versions = service.versions
        self._name = service.version_header
        self._legacy = _NOVA_HEADER if self._name == "compute" else None
        for older, newer in zip(self.versions, self.versions[1:], strict=False):
            assert newer == (older[0], older[1] + 1), f"{service.name}: a hole between versions {older} and {newer}"
        self._echoes = {version: self._echo(version) for version in self.versions}

    @property
    def oldest(self) -> Version:
        """What a request without a header speaks."""
        return self.versions[0] if self.versions else _NONE

    def version(self, headers: Mapping[str, str]) -> Version:
        """What this request speaks. Raises Invalid for a malformed version, NotAcceptable for one not offered."""
        if not self.versions:
            return _NONE
        text = _asked(headers.get(_HEADER), self._name) if _HEADER in headers else None
        if text is None and self._legacy is not None:
            text = headers.get(self._legacy)
        return self.oldest if text is None else self._parsed(text.strip())

    def echo(self, version: Version) -> tuple[tuple[bytes, bytes], ...]:
        """The reply's headers, errors included."""
        return self._echoes[version] if self.versions else ()

    def _parsed(self, text: str) -> Version:
        if text.lower() == "latest":
            return self.versions[-1]
        match = _FORM.fullmatch(text)
        if match is None:
            raise Invalid(f"API Version String '{text}' is of invalid format. Must be of format MajorNum.MinorNum.")
        version = (int(match[1]), int(match[2]))
        if version in self._echoes:
            return version
        low, high = (f"{major}.{minor}" for major, minor in (self.versions[0], self.versions[-1]))
        raise NotAcceptable(
            f"Version {text} is not supported by the API. Minimum is {low} and maximum is {high}.",
            why={"min_version": low, "max_version": high},
        )

    def _echo(self, version: Version) -> tuple[tuple[bytes, bytes], ...]:
        text = f"{version[0]}.{version[1]}"
        headers = [(b"openstack-api-version", f"{self._name} {text}".encode())]
        vary = "OpenStack-API-Version"
        if self._legacy is not None:
            headers.append((self._legacy.encode(), text.encode()))
            vary += ", X-OpenStack-Nova-API-Version"
        return (*headers, (b"vary", vary.encode()))


def _asked(header: str | None, name: str) -> str | None:
    """What the header says about this service: the text after its name, or None. The last mention wins."""
    found = None
    for part in (header or "").split(","):
        words = part.split(None, 1)
        if words and words[0].lower() == name:
            found = words[1] if len(words) > 1 else ""
    return found


def entry(service: Service, version_id: str, url: str, updated: str) -> dict[str, Any]:
    """A service's version document as nova, cinder and placement write it."""
    low, high = (
        (f"{v[0]}.{v[1]}" for v in (service.versions[0], service.versions[-1])) if service.versions else ("", "")
    )
    return {
        "id": version_id,
        "status": "CURRENT",
        "version": high,
        "min_version": low,
        "updated": updated,
        "links": [{"rel": "self", "href": url}],
    }
