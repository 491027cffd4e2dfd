"""What stands behind an address: kind of server, model, context, tokenizer, log-probabilities; asked before a run.

Whatever does not fit is an InputError of one line that says how to mend it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import EngineError, GenerateCall
from atts_runtime.engines.http_channel import Channel
from atts_runtime.engines.http_dialect import Ask, Dialect, Figures, Rows, reader
from atts_runtime.engines.http_errors import Refused, Unanswered
from atts_runtime.engines.http_sglang import Sglang
from atts_runtime.engines.http_vllm import VllmCompletions, VllmTokens
from atts_runtime.engines.vllm_scoring import Plan, Runner
from atts_runtime.engines.vocabulary import Vocabulary
from atts_runtime.errors import InputError

SAMPLE = "37 (a)+45 (b)-28 = 54\n\nThe answer is \\boxed{7}. Größe: 3 µm → naïve, 数学 😀"
"""Encoded here and there: two tokenizers that agree on it are taken for the same."""
_SALT = "probe"
_WANTS = "vLLM gives them with --logprobs-mode raw_logprobs, its default; SGLang always; llama.cpp never"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a role asks of its servers. `named`: the model's name there, where the user gave one; `scores`: that it
    scores segments."""

    role: str
    model: str
    named: str | None
    scores: bool


@dataclass(frozen=True, slots=True)
class Servers:
    """Where a model is served. `key`: sent to all of them, None: none; `key_option` names its variable's option.

    timeout_s  for one answer; retries: times a call may fail at a server that is well; patience_s: how long a call
    waits for one that is not
    """

    wanted: Wanted
    urls: tuple[str, ...]
    key: str | None = field(default=None, repr=False)
    key_option: str = ""
    timeout_s: float = 600.0
    retries: int = 2
    patience_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Server:
    """What answers at an address. `api`: vllm-tokens, vllm-completions, sglang or completions (any other server)."""

    name: str
    api: str
    max_context_tokens: int | None
    runner: Runner = "v1"
    tells_cached: bool = False

    @property
    def dialect(self) -> Dialect:
        """How to talk to it."""
        if self.api == "sglang":
            return Sglang()
        if self.api == "vllm-tokens":
            return VllmTokens(self.name, self.runner, tells_cached=self.tells_cached)
        return VllmCompletions(self.name)


def together(servers: dict[str, Server], role: str) -> Server:
    """What all endpoints of a model have in common; raises InputError where they differ in more than settings."""
    (first_url, common), *others = servers.items()
    for url, server in others:
        kinds = {"sglang" if s.api == "sglang" else "completions" for s in (common, server)}
        if server.name != common.name or len(kinds) > 1:
            raise InputError(
                f"--{role}-url: {first_url} serves {common.name!r} by {common.api}, {url} serves {server.name!r} by "
                f"{server.api}; endpoints of one model are servers of one kind with the same --served-model-name"
            )
        contexts = [s.max_context_tokens for s in (common, server) if s.max_context_tokens is not None]
        common = replace(
            common,
            api=min(common.api, server.api),  # completions < vllm-completions < vllm-tokens
            max_context_tokens=min(contexts, default=None),
            runner="v2" if common.runner == server.runner == "v2" else "v1",
            tells_cached=common.tells_cached and server.tells_cached,
        )
    return common


async def inspect(channel: Channel, url: str, wanted: Wanted, vocabulary: Vocabulary) -> Server:
    """Ask a server everything that a run relies on; raises InputError."""
    option = f"--{wanted.role}-url"
    try:
        card = _card(await channel.ask(url, "/v1/models"), url, wanted)
        server = Server(str(card["id"]), _api(card), _context(card))
        await _check_tokenizer(channel, url, server, vocabulary, wanted)
        ids = vocabulary.encode(SAMPLE)[:8]
        if server.api == "vllm-tokens":
            server = await _vllm(channel, url, server, ids)
        await _check_writing(channel, url, server, ids, vocabulary, option)
    except Unanswered as failure:
        raise InputError(f"{option}: {url} cannot be used: {failure}") from failure
    except Refused as error:
        raise InputError(f"{option}: {error}; it should be a server of vLLM, SGLang or OpenAI's form") from error
    if wanted.scores:
        await _check_scores(channel, url, server, ids, vocabulary, option)
    return server


def _card(told: Any, url: str, wanted: Wanted) -> dict[str, Any]:
    """The server's entry for the model."""
    cards = reader("/v1/models", lambda page: {str(card["id"]): dict(card) for card in page["data"]})(told)
    if wanted.named is not None:
        names = [wanted.named]
    else:
        names = [wanted.model, *(i for i, card in cards.items() if _same_place(card.get("root"), wanted.model))]
    for name in names:
        if name in cards:
            found: dict[str, Any] = cards[name]
            return found
    has = ", ".join(sorted(cards)) or "none"
    raise InputError(
        f"{url} serves no model {names[0]!r}, it has: {has}; "
        f"name the {wanted.role}'s by --{wanted.role}-name, or start the server with --served-model-name"
    )


def _same_place(root: object, model: str) -> bool:
    """Whether two paths of models mean one folder."""
    if not isinstance(root, str):
        return False
    return root == model or (Path(model).is_dir() and Path(root).resolve() == Path(model).resolve())


def _api(card: dict[str, Any]) -> str:
    """By who owns the model, as servers say."""
    return {"vllm": "vllm-tokens", "sglang": "sglang"}.get(str(card.get("owned_by")), "completions")


def _context(card: dict[str, Any]) -> int | None:
    meta = card.get("meta")
    length = card.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return length if isinstance(length, int) and length > 1 else None  # true is 1


async def _check_tokenizer(channel: Channel, url: str, server: Server, vocabulary: Vocabulary, wanted: Wanted) -> None:
    """Raises InputError where the server's tokenizer is another one. One that cannot be asked is taken on trust."""
    body = {"model": server.name, "prompt": SAMPLE, "content": SAMPLE, "add_special_tokens": False}
    try:
        told = await channel.ask(url, "/tokenize", body)
    except Refused:
        return
    theirs = told.get("tokens") if isinstance(told, dict) else None
    ours = vocabulary.encode(SAMPLE)
    if isinstance(theirs, list) and theirs != ours:
        raise InputError(
            f"{url} encodes text unlike the tokenizer of {wanted.model!r} ({len(theirs)} tokens of a sample, not "
            f"{len(ours)}); give --{wanted.role} the folder or hub id of the model that is served there"
        )


async def _vllm(channel: Channel, url: str, server: Server, ids: list[int]) -> Server:
    """Whether a vLLM server takes ids at `/inference/v1/generate`, and how it scores them."""
    plan = Plan(ids, 1, ids[1:], ())
    runners: tuple[Runner, ...] = ("v2", "v1")
    for runner in runners:
        ask = VllmTokens(server.name, runner, tells_cached=True).score(plan, _SALT, cached=False)
        try:
            answer = await _answer(channel, url, ask)
        except Refused:  # v2: it may be v1; v1 too: it was started without --enable-scale-out
            continue
        cached = reader(ask.path, lambda told: (told.get("usage") or {}).get("prompt_tokens_details"))(answer)
        return replace(server, runner=runner, tells_cached=cached is not None)
    return replace(server, api="vllm-completions")


async def _check_writing(
    channel: Channel, url: str, server: Server, ids: list[int], vocabulary: Vocabulary, option: str
) -> None:
    """Raises InputError where a server does not continue ids by ids."""
    call = GenerateCall(ChainId(0, 0), "", (), 1, 0.0, None, (0,))
    ask = server.dialect.generate(ids, call, Figures(1, 0, vocabulary.eos_ids, False, _SALT))
    answer = await _answer(channel, url, ask)
    try:
        reader(ask.path, server.dialect.written)(answer)
    except (Unanswered, EngineError) as error:
        raise InputError(
            f"{option}: {url} continues no ids by ids ({ask.path}); a server of vLLM or SGLang does"
        ) from error


async def _check_scores(
    channel: Channel, url: str, server: Server, ids: list[int], vocabulary: Vocabulary, option: str
) -> None:
    """Raises InputError where a server gives no log-probabilities of a prompt, or of a token that it is asked about."""
    plan = Plan(ids, 1, ids[1:], tuple(sorted(vocabulary.eos_ids)))
    dialect = server.dialect
    scored, last = dialect.score(plan, _SALT, cached=False), dialect.next_token(plan, _SALT)
    try:
        found: Rows = reader(scored.path, lambda told: dialect.scored(plan, told))(await _answer(channel, url, scored))
        reader(last.path, lambda told: dialect.read_next(plan, told))(await _answer(channel, url, last))
        reason = None if found.nll is not None else "none came back"
    except (Unanswered, EngineError) as error:
        reason = str(error)
    if reason is not None:
        raise InputError(
            f"{option}: {url} gives no log-probabilities of a prompt, which scoring needs ({_WANTS}): {reason}"
        )


async def _answer(channel: Channel, url: str, ask: Ask) -> Any:
    return await channel.ask(url, ask.path, ask.body)
