"""Run in a process of its own, with the fake library on its path: samples as told, answers with what came of it.

Each line of standard input is a JSON object, each line of standard output its answer: `settings`, environment of the
fake; `times`, the instants to sample at; `changes` of that environment from an instant on, as [[t, {name: value}],
...]; `windows` to integrate over, as [[begin, end], ...]; `indices` of devices or null; and `thread`, true to let
`NvmlSampler` sample by itself, on the fake's own clock, until it has done so `samples` times.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from typing import Any

from atts_runtime.profiler.nvml import NvmlReader, NvmlSampler
from atts_runtime.profiler.nvml_device import UNITS

PREFIX = "ATTS_FAKE_NVML_"
DEADLINE_S = 60.0


def at_instants(script: dict[str, Any]) -> NvmlReader:
    now_s = [0.0]
    changes = sorted(script["changes"], reverse=True)

    def clock() -> float:
        return now_s[0]

    def move(t_s: float) -> None:
        now_s[0] = t_s
        os.environ[f"{PREFIX}NOW_S"] = repr(t_s)
        while changes and changes[-1][0] <= t_s:
            os.environ.update(changes.pop()[1])

    move(script["times"][0] if script["times"] else 0.0)
    reader = NvmlReader(clock, script["indices"])
    reader.open()
    for t_s in script["times"]:
        move(t_s)
        reader.sample()
    return reader


def in_a_thread(script: dict[str, Any]) -> tuple[NvmlReader, dict[str, Any]]:
    sampler = NvmlSampler(NvmlReader(time.monotonic), interval_s=script["interval_s"])
    names = []
    for _ in range(2):  # started again after a stop, it goes on
        began_s = time.monotonic()
        sampler.start()
        sampler.start()
        names += [thread.name for thread in threading.enumerate() if thread.name == "atts-nvml"]
        goal = sampler.cost.samples + script["samples"]
        while sampler.cost.samples < goal and time.monotonic() < began_s + 30:
            time.sleep(0.01)
        sampler.stop()
        sampler.stop()
    ended_s = time.monotonic()
    left = [thread.name for thread in threading.enumerate() if thread.name == "atts-nvml"]
    cost = dataclasses.asdict(sampler.cost) | {"cores": sampler.cost.cores}
    return sampler.reader, {"threads": names, "left": left, "cost": cost, "began_s": began_s, "ended_s": ended_s}


def answer(script: dict[str, Any]) -> dict[str, Any]:
    os.environ.update(script["settings"])
    reader, extra = in_a_thread(script) if script["thread"] else (at_instants(script), {})
    windows = [
        {
            engine: {
                "drawn": dataclasses.asdict(record.energy(*window)),
                **{metric: _integral(record.integral(metric, *window)) for metric in UNITS},
            }
            for engine, record in reader.records.items()
        }
        for window in script["windows"]
    ]
    out = {
        "states": {
            engine: {metric: dataclasses.asdict(state) for metric, state in states.items()}
            for engine, states in reader.states().items()
        },
        "names": {engine: device.name for engine, device in reader.devices.items()},
        "rows": reader.rows(),
        "windows": windows,
        **extra,
    }
    reader.close()
    reader.close()
    out["after_close"] = _not_given_back()
    return out


def _integral(integral: Any) -> dict[str, Any] | None:
    return None if integral is None else dataclasses.asdict(integral) | {"mean": integral.mean}


def _not_given_back() -> dict[str, int] | None:
    """The fake's own count of what is still open; None for another library."""
    import pynvml

    library = pynvml.nvmlLib
    if library is None or not hasattr(library, "atts_fake_open_count"):
        return None
    return {"open": library.atts_fake_open_count(), "samples": library.atts_fake_live_samples()}


def main() -> None:
    for line in sys.stdin:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            del os.environ[name]
        faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
        try:
            out = answer(json.loads(line))
        except Exception:
            out = {"failed": traceback.format_exc()}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
