"""Whether the servers of the http engine answer, and what they serve."""

from __future__ import annotations

from collections.abc import Iterator

from atts_runtime.doctor.checks import Check
from atts_runtime.engines.http_channel import endpoints, environment, key_in
from atts_runtime.untrusted import json_of

_PATIENCE_S = 10.0


def server_checks(role: str, urls: str, key_env: str | None) -> Iterator[Check]:
    """One check an address. Raises InputError where an address is none, or the key's variable is not set."""
    import httpx

    key = key_in(key_env, f"--{role}-key-env")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with environment():
        client = httpx.Client(headers=headers, timeout=_PATIENCE_S)
    with client:
        for url in endpoints(urls, f"--{role}-url"):
            name = f"{role} at {url}"
            try:
                response = client.get(f"{url}/v1/models")
            except httpx.HTTPError as error:
                why = " ".join(str(error).split()) or type(error).__name__
                mend = f"start the server, or correct --{role}-url; a server that loads a model answers minutes later"
                yield Check("engines", name, "broken", f"does not answer: {why}", mend)
                continue
            yield _answered(name, role, response.status_code, _models(response.content))


def _answered(name: str, role: str, status: int, models: list[str] | None) -> Check:
    if status in (401, 403):
        mend = f"put its key into an environment variable and name that by --{role}-key-env"
        return Check("engines", name, "broken", f"refuses: it wants a key (status {status})", mend)
    if models is None:
        mend = "give the address of a server of vLLM or SGLang, as http://HOST:PORT"
        return Check("engines", name, "broken", f"/v1/models answers in an unknown form (status {status})", mend)
    if not models:
        return Check("engines", name, "broken", "serves no model", "start the server with a model")
    return Check("engines", name, "works", f"serves {', '.join(models)}")


def _models(content: bytes) -> list[str] | None:
    """Names of the served models; None where the answer has another form."""
    try:
        return [str(model["id"]) for model in json_of(content)["data"]]
    except (ValueError, KeyError, TypeError):
        return None
