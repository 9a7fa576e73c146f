"""A small client of this API on the standard library alone, for a remote platform and for this one.

The commands of build pipelines use it, so they need no web server on the local machine and no package on a
remote one.
"""

import io
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

Answer = tuple[int, dict[str, str], bytes]
# Answers of a platform, or a proxy before it, that may be another one in a moment.
_PASSING = frozenset({429, 502, 503, 504})


class RefusedError(Exception):
    """The platform's answer was an error; `status` is 0 if there was no answer at all."""

    def __init__(self, status: int, code: str, message: str, fields: Mapping[str, Any]) -> None:
        errors = [(name, error["message"]) for name, found in fields.items() for error in found]
        # Mostly the message is the fields' own sentences.
        said = [] if errors and all(text in message for _name, text in errors) else [message]
        super().__init__(" ".join([*said, *(f"{name}: {text}" for name, text in errors)]))
        self.status, self.code = status, code


class Transport(Protocol):
    """How a request gets to the platform."""

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer: ...

    def close(self) -> None: ...


class Remote:
    """By HTTP to the platform at `url`, as the owner of `token`."""

    def __init__(self, url: str, token: str, timeout: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url} is not an http or https address")
        self.url, self.token, self.timeout = url.rstrip("/"), token, timeout

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        request = urllib.request.Request(  # noqa: S310  (the scheme was checked)
            f"{self.url}{path}",
            data=body or (b"" if method == "POST" else None),
            method=method,
            headers={"Authorization": f"Token {self.token}", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:  # noqa: S310
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()
        except (urllib.error.URLError, OSError) as error:
            raise RefusedError(0, "unreachable", f"{self.url}: {error}", {}) from None

    def close(self) -> None:
        """Nothing is kept open."""


class Local:
    """Straight into this installation, as `user`; no server needs to run. Tokens live for minutes only."""

    LIFETIME = timedelta(minutes=10)

    def __init__(self, user: Any) -> None:
        self.user, self.row, self.token = user, None, ""

    def _renewed(self) -> str:
        from django.utils import timezone
        from knox.models import AuthToken

        row: Any = self.row
        if row is None or row.expiry < timezone.now() + self.LIFETIME / 2:
            self.close()
            self.row, self.token = AuthToken.objects.create(user=self.user, expiry=self.LIFETIME)
        return self.token

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        from django.conf import settings
        from django.core.handlers.base import BaseHandler
        from django.core.handlers.wsgi import WSGIRequest

        address, _, query = path.partition("?")
        public = urlsplit(settings.OTA_PUBLIC_URL)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": address,
            "QUERY_STRING": query,
            "SERVER_NAME": public.hostname,
            "SERVER_PORT": str(public.port or (443 if public.scheme == "https" else 80)),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "HTTP_AUTHORIZATION": f"Token {self._renewed()}",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": public.scheme,
        }
        environ |= {
            f"HTTP_{name.upper().replace('-', '_')}": value
            for name, value in headers.items()
            if name != "Content-Type"
        }
        handler = BaseHandler()
        handler.load_middleware()
        # Below the server's own signals, which would close the command's database connection.
        response: Any = handler.get_response(WSGIRequest(environ))
        return response.status_code, dict(response.headers), b"".join(response)

    def close(self) -> None:
        row: Any = self.row
        if row is not None:
            row.delete()
            self.row = None


class Client:
    """The calls that a pipeline needs. Each raises RefusedError for an answer of 400 and above.

    What may be repeated (a GET, and a POST with a key) is, when the platform is away for a moment.
    """

    TRIES = 4

    def __init__(
        self, transport: Transport, language: str = "en", pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.transport, self.language, self.pause = transport, language, pause

    def call(self, method: str, path: str, data: Any = None, *, key: str = "") -> Any:
        """A request under /api/v1/ with a JSON body; `key` is an Idempotency-Key."""
        body = b"" if data is None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json"} if body else {}
        return self._send(method, path, body, headers, key)

    def upload(self, path: str, fields: Mapping[str, str], file: Path, *, key: str = "") -> Any:
        """A form with a file under the name `file`."""
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        name = file.name.replace("\\", "_").replace('"', "_")
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n".encode()
        )
        body = b"".join([*parts, file.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self._send("POST", path, body, headers, key)

    def rows(self, path: str) -> Iterator[dict[str, Any]]:
        """All rows of a list, page by page."""
        address = path
        while True:
            page = self.call("GET", address)
            yield from page["results"]
            if not page["next"]:
                return
            # Only what follows our own prefix: the platform may know itself by another name than we do.
            address = page["next"].partition("/api/v1/")[2]

    def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str], key: str) -> Any:
        sent = {"Accept": "application/json", "Accept-Language": self.language, **headers}
        if key:
            sent["Idempotency-Key"] = key
        status, answer = self._tried(method, path, body, sent, self.TRIES if key or method == "GET" else 1)
        try:
            data = json.loads(answer) if answer else None
        except ValueError:
            data = None
        if status < 300:
            return data
        problem = data if isinstance(data, dict) else {}
        raise RefusedError(
            status,
            str(problem.get("code", "")),
            str(problem.get("message", f"HTTP {status}")),
            problem.get("fields", {}),
        )

    def _tried(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], tries: int
    ) -> tuple[int, bytes]:
        for left in range(tries - 1, -1, -1):
            wait = "2"
            try:
                status, answered, answer = self.transport.send(method, f"/api/v1/{path}", body, headers)
            except RefusedError:
                if not left:
                    raise
            else:
                if status not in _PASSING or not left:
                    return status, answer
                wait = answered.get("Retry-After", wait)
            self.pause(float(wait) if wait.isdecimal() else 2.0)
        raise AssertionError("the last try returns or raises")


def of_list(text: Sequence[str]) -> list[str]:
    """DeviceNames as given on a command line: names, or @FILE with one in the first column of each line."""
    names: list[str] = []
    for item in text:
        if item.startswith("@"):
            lines = Path(item[1:]).read_text(encoding="utf-8-sig").splitlines()
            column = [line.split(",")[0].strip().strip('"') for line in lines]
            names += [name for name in column if name and name.lower() != "devicename"]
        else:
            names.append(item)
    return list(dict.fromkeys(names))
