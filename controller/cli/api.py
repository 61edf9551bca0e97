"""The cloud's own REST API as the operator's commands use it: the same as everybody's. Standard library only."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
_CHUNK: Final = 1 << 20


class ApiError(Exception):
    """An answer outside 2xx: the status and what the service said."""

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        super().__init__(f"{method} {url}: {status} {_sentence(body)}")
        self.status = status


class Client:
    """One user in one project. Logs in at the first request and again after a 401."""

    def __init__(self, url: str, user: str, password: str, project: str) -> None:
        self.url = url
        self._identity = {
            "methods": ["password"],
            "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}},
        }
        self._scope = {"project": {"name": project, "domain": {"id": "default"}}}
        self._token = ""
        self.project_id = ""

    def login(self) -> None:
        """Get a token for the project."""
        body = {"auth": {"identity": self._identity, "scope": self._scope}}
        request = urllib.request.Request(f"{self.url}/identity/v3/auth/tokens", json.dumps(body).encode(), _JSON)
        with _opened(request) as answer:
            self._token = answer.headers["X-Subject-Token"]
            self.project_id = json.load(answer)["token"]["project"]["id"]

    def get(self, path: str) -> Any:
        """The JSON at a path such as /compute/v2.1/servers."""
        return self._send("GET", path)

    def post(self, path: str, body: Any, version: str = "") -> Any:
        """POST JSON; `version` is an OpenStack-API-Version such as `compute 2.79`."""
        return self._send("POST", path, json.dumps(body).encode(), version=version)

    def put(self, path: str, body: Any) -> Any:
        """PUT JSON."""
        return self._send("PUT", path, json.dumps(body).encode())

    def delete(self, path: str, version: str = "") -> Any:
        """DELETE."""
        return self._send("DELETE", path, version=version)

    def upload(self, path: str, file: Path) -> None:
        """PUT a file's bytes, streamed."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
        self._send("PUT", path, _chunks(file), headers)

    def _send(
        self, method: str, path: str, data: Any = None, headers: dict[str, str] | None = None, version: str = ""
    ) -> Any:
        if not self._token:
            self.login()
        sent = {**(headers or _JSON), "X-Auth-Token": self._token}
        if version:
            sent["OpenStack-API-Version"] = version
        with _opened(urllib.request.Request(self.url + path, data, sent, method=method)) as answer:
            body = answer.read()
        return json.loads(body) if body else None


_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


def _opened(request: urllib.request.Request) -> Any:
    assert request.full_url.startswith("http"), "the API speaks HTTP"
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        raise ApiError(request.get_method(), request.full_url, error.code, text) from error


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            yield chunk


def _sentence(body: str) -> str:
    """The message inside a service's envelope, or the start of whatever came."""
    try:
        inner = json.loads(body)
    except ValueError:
        return body[:300]
    while isinstance(inner, dict):
        if isinstance(inner.get("message"), str):
            return str(inner["message"])
        inner = next(iter(inner.values()), "")
    return body[:300]


def wait_for(what: str, probe: Callable[[], T | None], timeout_s: float, every_s: float = 0.1) -> T:
    """What `probe` returns once it is not None. Raises TimeoutError that names what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            found = probe()
        except (OSError, ApiError):
            found = None
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
