"""``atts-runtime run --engine http`` where settings, servers and models do not go together: one line, exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.cli import main
from atts_runtime.engines.vocabulary import Vocabulary
from tests.runtime.engines.http_stub import CERTIFICATE, Stub, stubs
from tests.runtime.test_cli_http import Capture, options, quick, served, vocabulary

__all__ = ["options", "quick", "served", "vocabulary"]
REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def mistake(capture: Capture, run: Path, *arguments: str) -> str:
    """What the command says is wrong; it starts no run."""
    assert main([*arguments]) == 2
    out, err = capture.readouterr()
    assert out == ""
    assert "Traceback" not in err
    (wrong,) = [line for line in err.splitlines() if line.startswith("atts-runtime run: ")]
    assert err.rstrip().endswith(wrong)
    assert not (run / "manifest.json").exists()
    return wrong.removeprefix("atts-runtime run: ")


def task_of(folder: Path, **questions: str) -> str:
    """A file of questions by id."""
    path = folder / "task.jsonl"
    lines = [json.dumps({"id": id_, "question": text, "answer": 1}) for id_, text in questions.items()]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--target-name", "gone"], "serves no model 'gone', it has: m; name the target's by --target-name"),
        (["--target-key-env", "NO_SUCH_KEY"], "the environment variable NO_SUCH_KEY is not set; export it, or leave"),
        (["--target-url", "http://127.0.0.1:9"], "--target-url: http://127.0.0.1:9 cannot be used"),
        (["--target-url", "http://me:secret@host"], "put a key into an environment variable"),
        (["--target-url", "http://me:secret@host:80a1"], "put a key into an environment variable"),
        (["--target-url", "me:secret@host:8001"], "put a key into an environment variable"),
        (["--target-url", "http://10.0.0.300"], "--target-url: 'http://10.0.0.300' is no address"),
        (["--target-url", "http://a..b:80"], "--target-url: 'http://a..b:80' is no address"),
        (["--draft", "bundled", "--turns", "99"], "lower --turns, --draft-tokens or --takeover-tokens"),
        (["--target", "no/such/model"], "no/such/model"),
    ],
)
def test_settings(options: list[str], more: list[str], said: str, tmp_path: Path, capsys: Capture) -> None:
    wrong = mistake(capsys, tmp_path / "run", *options, *more)
    assert said in wrong
    assert "secret@" not in wrong


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            {"logprobs": False},
            "which scoring needs (vLLM gives them with --logprobs-mode raw_logprobs, its default; ",
        ),
        ({"offset": 1}, "give --target the folder or hub id of the model that is served there"),
        ({"key": "sk-very-secret"}, "wants an API key (401 X): put one into an environment variable and name it by"),
        ({"kind": "llamacpp"}, "continues no ids by ids (/v1/completions); a server of vLLM or SGLang does"),
        ({"tls": True}, "TLS: self-signed certificate; name the authority's certificates in SSL_CERT_FILE"),
    ],
)
def test_a_server_that_does_not_fit(
    options: list[str], vocabulary: Vocabulary, made: dict[str, Any], said: str, tmp_path: Path, capsys: Capture
) -> None:
    with stubs(Stub(vocabulary, **made)) as (stub,):
        wrong = mistake(capsys, tmp_path / "run", *options, "--target-url", stub.url)
    assert said in wrong
    assert stub.url in wrong


def test_a_server_without_tls(options: list[str], served: tuple[Stub, Stub], tmp_path: Path, capsys: Capture) -> None:
    https = served[1].url.replace("http:", "https:")
    wrong = mistake(capsys, tmp_path / "run", *options, "--target-url", https)
    assert "does it speak https at all? If not, write http://" in wrong


def test_certificates_of_ones_own_are_taken_from_ssl_cert_file(
    options: list[str], vocabulary: Vocabulary, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with stubs(Stub(vocabulary, tls=True)) as (stub,):
        assert main([*options, "--target-url", stub.url, "--json"]) == 0
    assert '"failed_chains": 0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SSL_CERT_FILE", "/no/such/file", "certificates of /no/such/file cannot be read"),
        ("SSL_CERT_FILE", __file__, "name PEM files by SSL_CERT_FILE or SSL_CERT_DIR, or unset them"),
        ("HTTP_PROXY", "gopher://me:secret@host", "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY holds no proxy"),
    ],
)
def test_an_environment_that_no_client_can_use(
    options: list[str],
    variable: str,
    value: str,
    said: str,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    wrong = mistake(capsys, tmp_path / "run", *options)
    assert said in wrong
    assert "secret" not in wrong
    assert main(["doctor", "--target-url", "http://127.0.0.1:9"]) == 2
    assert said in capsys.readouterr().err


def test_a_question_beyond_the_context(
    options: list[str], vocabulary: Vocabulary, tmp_path: Path, capsys: Capture
) -> None:
    task = task_of(tmp_path, short="1+2", long="1+" * 300)
    with stubs(Stub(vocabulary, context=512)) as (stub,):
        wrong = mistake(capsys, tmp_path / "run", *options, "--task", task, "--target-url", stub.url)
    assert "question 'long' has 6" in wrong
    assert (
        " tokens but the target model's context is 512; leave it out, or have the model served with a longer" in wrong
    )


@pytest.mark.parametrize("context", [1024, None])  # one that does not say how long its context is
def test_a_chat_template_that_refuses_a_system_message(
    options: list[str], vocabulary: Vocabulary, variant: Any, context: int | None, tmp_path: Path, capsys: Capture
) -> None:
    model = variant(Path(options[options.index("--target") + 1]), "tokenizer_config.json", chat_template=REFUSING)
    with stubs(Stub(vocabulary, context=context)) as (stub,):
        arguments = [*options, "--target", str(model), "--target-url", stub.url, "--system-prompt", "Be brief."]
        wrong = mistake(capsys, tmp_path / "run", *arguments, "--task", task_of(tmp_path, one="1+2", two="2+3"))
    assert wrong.startswith(f"the chat template of '{model}' does not take a question with a system message: ")
    assert wrong.endswith("System role not supported; leave --system-prompt out")
