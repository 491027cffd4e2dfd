"""JSON over HTTP: connections that are kept, a deadline a request, and the key in its header and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from atts_runtime import __version__
from atts_runtime.engines.http_errors import Unanswered, refused, untransported
from atts_runtime.errors import InputError
from atts_runtime.untrusted import json_of

_CONNECT_S = 10.0
_KEPT_S = 3.0  # below the 5 s after which uvicorn closes an idle connection: one closed meanwhile fails a request


def endpoints(text: str, option: str) -> tuple[str, ...]:
    """The addresses in a comma-separated list, without a trailing ``/v1``; raises InputError where one is none."""
    urls = [part.strip() for part in text.split(",")]
    return tuple(dict.fromkeys(_address(url, option) for url in urls))


def _address(url: str, option: str) -> str:
    more = "@" in url  # a key or password: whatever else is wrong with the address, it is not shown
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        more = more or bool(parts.query or parts.fragment)
        httpx.URL(url)  # which knows what an address of a machine may be, and then of a name
        (parts.hostname or "").encode("idna")
    except (ValueError, httpx.InvalidURL):
        known = False
    if more:
        raise InputError(
            f"{option}: an address that holds more than host, port and path; put a key into an environment variable"
        )
    if not known:
        raise InputError(f"{option}: {url!r} is no address; give http://HOST:PORT, several separated by commas")
    return url.rstrip("/").removesuffix("/v1")


def key_in(variable: str | None, option: str) -> str | None:
    """The key that an environment variable holds; raises InputError where it is not set."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"{option}: the environment variable {variable} is not set; export it, or leave {option} out")
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{option}: what the environment variable {variable} holds is no key: it has odd characters")
    return key


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Raises InputError where a client cannot be made of what the environment says of certificates and proxies."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"certificates of {os.environ.get('SSL_CERT_FILE') or os.environ.get('SSL_CERT_DIR')} cannot be read "
            f"({error.strerror or error}); name PEM files by SSL_CERT_FILE or SSL_CERT_DIR, or unset them"
        ) from error
    except (ValueError, httpx.InvalidURL, ImportError) as error:
        raise InputError(
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY holds no proxy that can be used; give http://HOST:PORT"
        ) from error


class Channel:
    """A client of all servers of one model.

    Args:
        key: sent as a bearer token; never part of an error, a log or a manifest.
        key_option: the option that names the key's environment variable, for errors.
        timeout_s: how long an answer may take.
    """

    def __init__(self, key: str | None, key_option: str, timeout_s: float) -> None:
        self._key, self._key_option, self._timeout_s = key, key_option, timeout_s
        headers = {"user-agent": f"atts/{__version__}"} | ({"authorization": f"Bearer {key}"} if key else {})
        with environment():
            self._client = httpx.AsyncClient(
                headers=headers,
                timeout=httpx.Timeout(None, connect=_CONNECT_S),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEPT_S),
            )

    async def ask(self, url: str, path: str, body: dict[str, Any] | None = None, timeout_s: float | None = None) -> Any:
        """The answer's JSON: to a POST of `body`, to a GET where there is none.

        Raises Unanswered, InputError or EngineError (`http_errors`).
        """
        response = await self._send(url, path, body, timeout_s)
        try:
            return json_of(response.content)
        except ValueError as error:
            raise Unanswered(f"the answer to {path} is not JSON: {error}", "request") from error

    async def text(self, url: str, path: str, timeout_s: float | None = None) -> str:
        """The answer to a GET as it stands."""
        return (await self._send(url, path, None, timeout_s)).text

    async def alive(self, url: str, timeout_s: float) -> None:
        """Returns where the server says that it is well, or knows no such question; raises as `ask` where not."""
        response = await self._receive(url, "/health", None, timeout_s)
        if response.status_code >= 500:
            raise refused(response, url, self._key, self._key_option)

    async def _send(self, url: str, path: str, body: dict[str, Any] | None, timeout_s: float | None) -> httpx.Response:
        response = await self._receive(url, path, body, timeout_s)
        if not response.is_success:
            raise refused(response, url, self._key, self._key_option)
        return response

    async def _receive(
        self, url: str, path: str, body: dict[str, Any] | None, timeout_s: float | None
    ) -> httpx.Response:
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._client.request("GET" if body is None else "POST", url + path, json=body)
        except TimeoutError as error:
            raise Unanswered(f"no answer within {limit_s:g} s", "request") from error
        except httpx.HTTPError as error:
            raise untransported(error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()
