"""Where a study's workload comes from, by kind: the registry that ``[workload] kind`` chooses from.

A `Source` is loaded once a process and gives each simulation a workload of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from atts_runtime.config import MODEL_SETTINGS, TAKEOVERS, RunConfig, read_options
from atts_runtime.control.events import ChainId
from atts_runtime.errors import InputError
from atts_sim.drawn import Drawn
from atts_sim.generative_store import load_workload
from atts_sim.options import Options
from atts_sim.published import read_trace
from atts_sim.recorded import Recorded, RecordedChain, read_run
from atts_sim.simrun import SimRun
from atts_sim.workload import Workload, Written


class Source(Protocol):
    """A loaded workload. `defaults`: settings that it brings, where the study names none; `told`: what it is, for the
    row's sources; `digest`: of its content."""

    @property
    def defaults(self) -> Mapping[str, Any]: ...

    @property
    def told(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def workload(self, config: RunConfig) -> Workload:
        """For one simulation of these settings. Raises InputError where it cannot serve them."""

    def knows_outcome(self, run: SimRun) -> bool:
        """Whether which chains came out right is known of such a run."""


def source_of(options: Options) -> Source:
    """The workload that the options name."""
    kind = options.get("workload.kind")
    if kind is None:
        raise InputError(f"workload.kind is missing; choose one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise InputError(f"unknown workload.kind {kind!r}; choose one of {', '.join(KINDS)}")
    return KINDS[str(kind)](options)


# -- replay


class Replay:
    """A recorded run or published trace. What was written is on record, so segment lengths cannot change, and there
    are no more questions, chains and turns than were recorded; of fewer, the first ones are replayed."""

    def __init__(self, options: Options) -> None:
        path = _path(options, "a run directory or a published trace's .events.parquet")
        scale = float(options.get("workload.token_scale", 1.0))
        self._own: dict[str, Any] = {}
        if path.is_dir():
            if "workload.token_scale" in options:
                raise InputError("workload.token_scale corrects published traces; leave it out for a run of ours")
            self._recorded = read_run(path, unrecorded="nearest")
            ran = RunConfig().with_options(read_options(path / "config.toml"))
            self._own = asdict(ran) | {"takeover": _heeded(ran, "takeover")}
            files = [path / "config.toml", path / "chains.jsonl"]
        else:
            self._recorded = read_trace(path, token_scale=scale, unrecorded="nearest")
            files = [path, path.with_name(path.name.replace("events.parquet", "samples.parquet"))]
        recorded = self._recorded
        self._most = {
            "questions": recorded.questions,
            "chains": recorded.chains,
            "turns": self._own.get("turns", recorded.turns),
        }
        brought = {name: self._own[name] for name in _BROUGHT if self._own.get(name) is not None}
        if brought.get("takeover") not in (*TAKEOVERS, None):
            del brought["takeover"]  # an action that goes with the policy: nobody takes over
        self.defaults = brought | self._most
        self.told = f"workload: replay of {path.name}" + (f", token counts times {scale:g}" if scale != 1 else "")
        self.digest = f"{digest(files)}@{scale!r}"
        self._parts: dict[tuple[int, int], _Part] = {}

    def workload(self, config: RunConfig) -> Workload:
        questions = self._most["questions"] if config.questions is None else config.questions
        asked = {"questions": questions, "chains": config.chains, "turns": config.turns}
        for name, value in asked.items():
            if value > self._most[name]:
                raise InputError(
                    f"{name} = {value}, but the recording has {self._most[name]}; lower it, or use a workload of kind "
                    "'fitted'"
                )
        for name in ("draft_tokens", "takeover_tokens", "takeover"):
            if self._own and (wanted := _heeded(config, name)) != self._own[name]:
                raise InputError(
                    f"{name} = {wanted}, but the recording was made with {self._own[name]}, and its "
                    "segments are what they are; use a workload of kind 'fitted'"
                )
        part = self._parts.get((questions, config.chains))
        if part is None:
            part = self._parts[questions, config.chains] = _Part(self._recorded, questions, config.chains)
        return part

    def knows_outcome(self, run: SimRun) -> bool:
        """The recorded chains came out as they did because of the takeovers that they had: with others, who knows?"""
        part = self._parts[run.questions, run.chains]
        if part.unknown:
            return False
        written_by = part.written_by
        asked = [request for request in run.requests if request.kind != "score"]
        return len(asked) == len(written_by) and all((r.chain, r.turn, r.kind) in written_by for r in asked)


_BROUGHT = (
    "draft_tokens",
    "takeover_tokens",
    "takeover",
    "p_value",
    "seed",
    "gamma",
    *MODEL_SETTINGS,
)
"""Settings of a recorded run that a study takes over, where it does not name them itself."""


def _heeded(config: RunConfig, name: str) -> Any:
    """A setting, or the policy's own where it is left open."""
    return config.recipe.action.name if name == "takeover" else getattr(config, name)


class _Part(Recorded):
    """The first questions and chains of a recording. Stand-ins for takeovers that it lacks are looked for once.

    A chain ends in the turn in which it ended: where the recorded takeover ended it, the draft before ends it too, if
    this time nobody takes over. `written_by`: the drafts and takeovers on record; `unknown`: of no chain is it on
    record how it came out.
    """

    def __init__(self, whole: Recorded, questions: int, chains: int) -> None:
        kept = {ChainId(q, i): _ending(whole.recorded[ChainId(q, i)]) for q in range(questions) for i in range(chains)}
        super().__init__(whole.prompts[:questions], kept, unrecorded="nearest")
        self._stand_ins: dict[tuple[ChainId, int], Written] = {}
        self.unknown = all(recorded.correct is None for recorded in kept.values())
        self.written_by = {
            (chain, turn, kind)
            for chain, recorded in kept.items()
            for kind, pieces in (("draft", recorded.drafts), ("takeover", recorded.takeovers))
            for turn, piece in enumerate(pieces)
            if piece is not None
        }

    def _nearest(self, chain: ChainId, turn: int) -> Written:
        found = self._stand_ins.get((chain, turn))
        if found is None:
            found = self._stand_ins[chain, turn] = super()._nearest(chain, turn)
        return found


def _ending(chain: RecordedChain) -> RecordedChain:
    draft, takeover = chain.drafts[-1], chain.takeovers[-1]
    if draft is None or takeover is None or not (takeover.answered or takeover.ended):
        return chain
    last = replace(draft, answered=takeover.answered, ended=takeover.ended or draft.eos)
    return replace(chain, drafts=[*chain.drafts[:-1], last])


def _path(options: Options, what: str) -> Path:
    path = options.get("workload.path")
    if path is None:
        raise InputError(f"workload.path is missing; name {what}, here or with --set workload.path=PATH")
    found = Path(str(path))
    if not found.exists():
        raise InputError(f"workload.path {found} does not exist; name {what}, here or with --set workload.path=PATH")
    return found


def digest(files: list[Path]) -> str:
    """SHA-256 over the files' bytes."""
    total = hashlib.sha256()
    for file in files:
        try:
            total.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
    return total.hexdigest()


# -- fitted


class Fitted:
    """A generative workload: any number of questions, chains and turns, any takeover rate. `workload.path` is the file
    that ``atts-sim validate --save`` wrote. What is drawn depends on the seed alone, so settings are compared on the
    same draws. Where the study does not say how long segments may be, none is cut."""

    def __init__(self, options: Options) -> None:
        path = _path(options, "a fitted workload, as atts-sim validate --save writes it, or a shipped one's name")
        if path.is_dir():
            raise InputError(f"workload.path {path} is a folder; fit a workload to it: atts-sim validate --save")
        self._fitted = load_workload(path)
        plain, wrote = RunConfig(), self._fitted.longest
        self.defaults: Mapping[str, Any] = {
            "questions": len(self._fitted.prompts),
            "draft_tokens": max(plain.draft_tokens, wrote("draft")),
            "takeover_tokens": max(plain.takeover_tokens, wrote("takeover"), wrote("alone")),
            "takeover": "resample" if self._fitted.replaces else "continue",
        }
        self.told = f"workload: {path.name}, fitted to {', '.join(self._fitted.sources)}"
        self.digest = digest([path])

    def workload(self, config: RunConfig) -> Workload:
        action = config.recipe.action
        if action.takes_over and action.replace != self._fitted.replaces and config.recipe.drafts:
            raise InputError(f"action {action.name}, but the workload was fitted to runs of the other kind")
        questions = len(self._fitted.prompts) if config.questions is None else config.questions
        return Drawn(self._fitted, questions, config.chains, config.seed)

    def knows_outcome(self, run: SimRun) -> bool:
        return self._fitted.errors is not None


KINDS: Mapping[str, Callable[[Options], Source]] = {"replay": Replay, "fitted": Fitted}
"""Workloads by kind."""
