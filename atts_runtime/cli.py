"""The command line of the runtime; what its commands do is in `commands`.

Exit codes: 0 done, 1 failed while running, 2 bad usage or input. Results go to stdout, progress and errors to
stderr; an error is one line, `--debug` adds the traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from atts_runtime import __version__
from atts_runtime.commands import compare as compare_command
from atts_runtime.commands import doctor, policies, profile, report, trace
from atts_runtime.commands import run as run_command
from atts_runtime.commands.parser import OneLineParser, add_completion, add_output
from atts_runtime.commands.running import add_plugins, interruptible
from atts_runtime.commands.settings import add_settings
from atts_runtime.config import ENGINES, P_VALUES, SWITCH, TAKEOVERS
from atts_runtime.control.registry import ACTIONS, GATES, POLICIES, SCHEDULES, STOPS, VOTES
from atts_runtime.errors import InputError
from atts_runtime.tasks.named import NAMED

DEFAULT_STUDY = "target-only,barrier,async-marginal"

_HELP = {
    "task": f"arithmetic (bundled; arithmetic:N for N terms), {', '.join(NAMED)}, a .jsonl file (question, answer, "
    "perhaps choices), or a hub NAME[@CONFIG][:SPLIT][#REVISION]",
    "questions": "how many questions (default: 16 of the bundled task, else all)",
    "system_prompt": "system message that a chat template puts before every question (default: none)",
    "chains": "parallel chains a question (m)",
    "turns": "most turns a chain (T)",
    "draft_tokens": "most tokens a drafted segment",
    "takeover_tokens": "most tokens a takeover",
    "questions_in_flight": "questions worked on at once (default: all)",
    "policy": f"one of {', '.join(POLICIES)}",
    "gate": f"whose segment is rejected: {', '.join(GATES)} (default: the policy's)",
    "action": f"what becomes of it: {', '.join(ACTIONS)} (default: the policy's)",
    "schedule": f"when a chain goes on: {', '.join(SCHEDULES)} (default: the policy's)",
    "early_stop": f"when a question is decided: {', '.join(STOPS)}, several separated by commas (default: never)",
    "vote": f"which answer wins: {', '.join(VOTES)} (default: the policy's)",
    "threshold": "score in nats per token above which gate threshold rejects",
    "cues": "words that gate cue rejects, separated by commas",
    "attempts": "drafts a turn under action redraft and fork",
    "fork_gap": "nats per token by which a peer must score better than the best attempt for a fork",
    "fork_width": "how often one chain may be forked from",
    "deadline_s": "seconds from a question's admission after which its chains are stopped (default: none)",
    "token_budget": "most tokens written on a question, by both models (default: no bound)",
    "beta_level": "probability of being the majority at which early stop beta is sure",
    "alpha": "nominal takeover rate, 0 < alpha < 1",
    "budget": "takeovers a turn and question; under budget and async-adaptive also their bound (default: by alpha)",
    "gamma": "step of async-adaptive's alpha after each decision",
    "takeover": f"{' or '.join(TAKEOVERS)}: write after the segment, or in its place (default: the policy's)",
    "p_value": f"{' or '.join(P_VALUES)}: break ties at random (exact rate), or count all (at most the rate)",
    "bank": "scores that gate marginal tests against (.npz of atts-sim replay --save-bank; default: pre-sampled)",
    "draft": "folder or hub id of the draft model",
    "target": "folder or hub id of the target model",
    "engine": f"one of {', '.join(ENGINES)}",
    "draft_args": 'further engine arguments of the draft under vllm, a JSON object ({"block_size": 16})',
    "target_args": 'those of the target ({"tensor_parallel_size": 2, "quantization": "fp8"})',
    "draft_url": "the draft's servers under http, http://HOST:PORT, several separated by commas",
    "target_url": "the target's servers",
    "draft_name": "the draft's name on its servers (default: DRAFT)",
    "target_name": "the target's name on its servers (default: TARGET)",
    "draft_key_env": "environment variable that holds the key of the draft's servers",
    "target_key_env": "environment variable that holds the key of the target's servers",
    "patience_s": "seconds a call waits for a server that is down before the run ends, to be resumed",
    "temperature": "sampling temperature, 0 for greedy",
    "seed": "seed of the questions and of every chain's sampling",
    "max_rows": "chains that an engine decodes together",
    "kv_budget_tokens": "KV tokens an engine keeps for idle chains (default: no bound)",
    "device": "torch device (default: CUDA where there is one, else CPU)",
    "threads": "CPU threads of each engine (default: half the cores, so that draft and target run side by side)",
    "call_timeout_s": "seconds before a call is given up",
    "retries": "times a failed call is tried again",
    "profiler": f"{' or '.join(SWITCH)}: count FLOPs and bytes, sample NVIDIA GPUs",
    "hardware": "hardware profile to count r against: a .toml or a shipped one's name (default: this machine's)",
    "out": "run directory (default: runs/TIME-POLICY)",
}
_LEFT = {
    "run": "finished chains are kept, go on with --resume and the same --out",
    "compare": "the runs so far are kept, compare again with another --out",
    "trace": "nothing was written",
    "report": "nothing was written",
    "profile": "nothing was written",
    "doctor": "nothing was changed",
    "policies": "nothing was changed",
}
_COMPLETED = {
    "task": ("arithmetic", *NAMED),
    "policy": tuple(POLICIES),
    "policies": tuple(POLICIES),
    "engine": ENGINES,
    "gate": tuple(GATES),
    "action": tuple(ACTIONS),
    "schedule": tuple(SCHEDULES),
    "early_stop": tuple(STOPS),
    "vote": tuple(VOTES),
    "takeover": TAKEOVERS,
    "p_value": P_VALUES,
    "profiler": SWITCH,
}
"""Values that shells offer for a flag, by its setting."""


def build_parser() -> argparse.ArgumentParser:
    """The parser; flags are the fields of RunConfig."""
    parser = OneLineParser(
        prog="atts-runtime",
        usage="%(prog)s COMMAND [OPTION]...",
        description="Asynchronous test-time scaling: draft, verify, take over; nobody waits for anybody. "
        "COMMAND --help says more of each.",
        epilog="examples:\n"
        "  atts-runtime doctor                                    what works on this machine\n"
        "  atts-runtime run --policy async-marginal --alpha 0.1 --chains 8\n"
        "  atts-runtime compare --policies barrier,async-marginal\n"
        "  atts-runtime report runs/*                             runs beside each other, as one HTML page",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    add_completion(parser, _COMPLETED)
    commands = parser.add_subparsers(
        prog=parser.prog, title="commands", dest="command", metavar="COMMAND", required=True
    )
    run = commands.add_parser(
        "run",
        help="run one policy over a task",
        usage="%(prog)s [OPTION]...",
        description="Run one policy over a task. Without options: the bundled pair on the bundled task.",
        epilog="examples:\n"
        "  atts-runtime run\n"
        "  atts-runtime run --task questions.jsonl --draft ./small --target ./large --out runs/mine\n"
        "  atts-runtime run --resume --out runs/mine",
    )
    compare = commands.add_parser(
        "compare",
        help="run several policies on the same questions and engines",
        usage="%(prog)s [OPTION]...",
        description="Run several policies on the same questions, seeds and engines, interleaved, and tabulate them.",
        epilog="example:\n  atts-runtime compare --policies target-only,barrier,async-marginal --repeats 3",
    )
    compared = compare.add_argument_group("what is compared")
    compared.add_argument(
        "--policies", default=DEFAULT_STUDY, metavar="POLICY,...",
        help="names, or .toml files with the settings that make a policy, comma-separated; all: every policy "
        "(default: %(default)s)",
    )  # fmt: skip
    compared.add_argument(
        "--margin", type=float, default=0.02, metavar="X",
        help="loss of accuracy that still counts as none (default: %(default)s)",
    )  # fmt: skip
    compared.add_argument(
        "--repeats",
        type=int,
        default=1,
        metavar="N",
        help="times each policy runs; wall seconds are medians (default: %(default)s)",
    )
    for command, work in ((run, run_command.execute), (compare, compare_command.execute)):
        command.set_defaults(execute=interruptible(work))
        files = add_settings(command, _HELP, skip=() if command is run else ("policy",))["files"]
        files.add_argument("--config", type=Path, metavar="FILE", help="TOML file with these settings; flags win")
        add_plugins(files)
        if command is run:
            files.add_argument("--resume", action="store_true", help="go on with the unfinished run in --out")
        add_output(command)
    for module in (policies, report, trace, profile, doctor):
        module.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as error:
        return int(error.code or 0)
    execute: Callable[[argparse.Namespace], int] = args.execute
    try:
        return execute(args)
    except InputError as error:
        failure: BaseException = error
        code, message = 2, f"{args.command}: {error}"
    except (asyncio.CancelledError, KeyboardInterrupt) as error:
        failure = error
        code, message = 1, f"{args.command}: interrupted; {_LEFT[args.command]}"
    except Exception as error:
        failure = error
        where = "" if args.debug else " (--debug shows where)"
        code, message = 1, f"{args.command}: {type(error).__name__}: {error}{where}"
    if args.debug:
        traceback.print_exception(failure)
    print(f"atts-runtime {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
