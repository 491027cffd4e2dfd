"""Claims about ``atts-runtime doctor --target-url``: what servers say, and how to mend it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from atts_runtime.cli import main
from atts_runtime.doctor.checks import Check
from atts_runtime.doctor.servers import server_checks

Serve = Callable[..., str]
KEY = "sk-secret"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(status, body)``: the address of a server that answers so, and with 401 where `key` is not sent."""
    started: list[ThreadingHTTPServer] = []

    def start(status: int, body: object, key: str | None = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = key is None or self.headers.get("authorization") == f"Bearer {key}"
                self.send_response(status if known else 401)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def checked(urls: str, key_env: str | None = None) -> list[Check]:
    return list(server_checks("target", urls, key_env))


def test_a_server_that_serves_is_told_with_its_models(serve: Serve) -> None:
    (check,) = checked(serve(200, {"data": [{"id": "qwq"}, {"id": "lora"}]}))
    assert (check.state, check.found, check.mend) == ("works", "serves qwq, lora", None)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "unknown form"),
        (200, b"[" * 100_000, "unknown form"),
        (200, {"data": [{}]}, "unknown form"),
        (404, {"detail": "no"}, "status 404"),
        (200, {"data": []}, "no model"),
        (403, {}, "wants a key"),
    ],
)
def test_what_does_not_serve_is_broken_and_has_a_mend(serve: Serve, status: int, body: object, said: str) -> None:
    (check,) = checked(serve(status, body))
    assert check.state == "broken"
    assert said in check.found
    assert check.mend


def test_every_address_is_asked_and_one_that_is_dead_does_not_hide_the_others(serve: Serve) -> None:
    dead, alive = checked(f"http://127.0.0.1:9,{serve(200, {'data': [{'id': 'qwq'}]})}")
    assert (dead.state, alive.state) == ("broken", "works")
    assert dead.mend is not None
    assert "--target-url" in dead.mend


def test_a_key_goes_to_the_server_and_nowhere_else(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", KEY)
    url = serve(200, {"data": [{"id": "qwq"}]}, key=KEY)
    (without,), (with_it,) = checked(url), checked(url, "SERVER_KEY")
    assert (without.state, with_it.state) == ("broken", "works")
    assert KEY not in repr((without, with_it))


def test_an_address_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--target-url", "gpu-box"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("atts-runtime doctor: --target-url: 'gpu-box' is no address")
