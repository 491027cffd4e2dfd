"""What can go wrong between a client and a server, classed by who has to act on it.

`Unanswered`: the request may be made again, here or elsewhere. `InputError`: a person has to mend something.
`EngineError`: the server understood the call and cannot do it.
"""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Mapping
from typing import Any, Literal

import httpx

from atts_runtime.engines.base import EngineError
from atts_runtime.errors import InputError
from atts_runtime.untrusted import json_of

Blame = Literal["endpoint", "load", "request"]
_BUSY = frozenset({408, 425, 429, 502, 503, 504})
_NO_KEY = frozenset({401, 403})
_SAID = 300  # characters of a server's own words


class Unanswered(Exception):
    """A request without a usable answer.

    endpoint   it could not be reached: it is down
    load       it, or what stands before it, asked to come back, after `retry_after_s` where it said so
    request    it took the request and failed at it, which may be the request's fault
    """

    def __init__(self, cause: str, blame: Blame, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.blame, self.retry_after_s = blame, retry_after_s


class Refused(EngineError):
    """A call that a server understood and will not carry out."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def untransported(error: httpx.HTTPError) -> Unanswered:
    """A request that the connection failed."""
    reason = tls_trouble(error) or str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return Unanswered("it does not answer to a connection", "endpoint")
    if isinstance(error, httpx.ConnectError):
        return Unanswered(reason, "endpoint")
    return Unanswered(f"the connection broke off: {reason}", "request")


def tls_trouble(error: BaseException | None) -> str | None:
    """Why the two sides found no common TLS, if that was it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"TLS: {error.verify_message}; name the authority's certificates in SSL_CERT_FILE"
        if isinstance(error, ssl.SSLError):
            return f"TLS: {error.reason or error}; does it speak https at all? If not, write http://"
        error = error.__cause__ or error.__context__
    return None


def refused(response: httpx.Response, where: str, key: str | None, key_option: str) -> Exception:
    """What a status other than 2xx means for the request."""
    status = response.status_code
    said = f"{status} {response.reason_phrase}".strip()
    if status in _NO_KEY:
        wrong = "refuses the key" if key else "wants an API key"
        return InputError(f"{where} {wrong} ({said}): put one into an environment variable and name it by {key_option}")
    if message := _message(response):
        said += f": {(message.replace(key, '***') if key else message)[:_SAID]}"
    if status in _BUSY:
        return Unanswered(said, "load", retry_after_s(response.headers))
    if status >= 500:
        return Unanswered(said, "request")
    return Refused(f"{where} answered {said}", status)


def _message(response: httpx.Response) -> str:
    """The server's own words: OpenAI's form, FastAPI's, or the text as it stands."""
    try:
        body: Any = json_of(response.content)
    except ValueError:
        body = response.text
    if isinstance(body, dict):
        body = body.get("error", body.get("detail", body.get("message", body)))
    if isinstance(body, dict):
        body = body.get("message", body)
    return " ".join(str(body).split())


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds: a number or a date (RFC 9110, 10.2.3); None where there is none that can be read."""
    value = headers.get("retry-after")
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):  # no date, or one beyond the calendar
        return None
