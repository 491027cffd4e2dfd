"""What calibration costs: streaming into a large bank, and batches against raw NumPy and crepes.

    python -m tests.benchmarks.bench_conformal [--bank 1000000] [--batch 100000] [--repeats 5] [--json] [--record]

Streaming is one query and one insertion, as the runtime does for every segment; the figure is the median over all of
them. Batches are ranked against a bank of the same size; NumPy's time is sort + searchsorted and nothing else. Rivals
take turns in one process and are compared by medians. crepes is left out, saying so, where it is not installed
(`pip install 'atts[bench]'`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from atts_runtime.conformal import Bank, CohortBank, SealedBank, plain_batch, smoothed, smoothed_batch
from tests.benchmarks import record

AGREE = 2_000
"""P-values that are compared with crepes' one by one."""


def streaming_s(size: int, queries: int, seed: int) -> list[float]:
    """Seconds of each query + insertion at a bank that starts with `size` scores."""
    rng = np.random.default_rng(seed)
    bank = Bank(rng.normal(size=size).tolist())
    seconds = []
    for score, u in zip(rng.normal(size=queries).tolist(), (1 - rng.random(queries)).tolist(), strict=True):
        start = time.perf_counter()
        smoothed(bank.counts(score), u)
        bank.add(score)
        seconds.append(time.perf_counter() - start)
    return seconds


def cohorts_s(members: int, window: int, queries: int, seed: int) -> list[float]:
    """Seconds of each query + insertion in sealed cohorts of `members`, `window` of them a reference."""
    rng = np.random.default_rng(seed)
    bank = CohortBank(lag=1, window=window)
    seconds = []
    for i, score in enumerate(rng.normal(size=queries).tolist()):
        if i % members == 0:
            cohort = bank.expect(None, members)
        start = time.perf_counter()
        reference = bank.reference(None, cohort)
        if isinstance(reference, SealedBank):
            reference.counts(score)
        bank.insert(None, cohort, score)
        seconds.append(time.perf_counter() - start)
    return seconds


def crepes_classifier(bank: Any) -> Any:
    """crepes' conformal classifier with the bank as its calibration scores; None where crepes is not installed."""
    try:
        from crepes import ConformalClassifier
    except ImportError as error:
        print(f"crepes is left out: {error}", file=sys.stderr)
        return None
    classifier = ConformalClassifier()
    classifier.fit(bank)
    return classifier


def agree(size: int, seed: int) -> float:
    """Largest difference of our plain p-values and crepes' on one batch; they mean the same by large scores."""
    rng = np.random.default_rng(seed)
    bank, scores = rng.normal(size=size), rng.normal(size=size)
    theirs = crepes_classifier(bank).predict_p(scores.reshape(-1, 1), smoothing=False).ravel()
    return float(np.max(np.abs(theirs - plain_batch(np.sort(bank), scores))))


def batches(size: int, repeats: int, seed: int) -> dict[str, list[float]]:
    """Seconds by rival, interleaved; each sorts the bank and ranks `size` scores against it."""
    rng = np.random.default_rng(seed)
    bank, scores, u = rng.normal(size=size), rng.normal(size=size), 1 - rng.random(size)
    rivals: dict[str, Callable[[], Any]] = {
        "numpy": lambda: np.searchsorted(np.sort(bank), scores),
        "plain": lambda: plain_batch(np.sort(bank), scores),
        "smoothed": lambda: smoothed_batch(np.sort(bank), scores, u),
    }
    if (classifier := crepes_classifier(bank)) is not None:
        rivals["crepes plain"] = lambda: classifier.predict_p(scores.reshape(-1, 1), smoothing=False)
        rivals["crepes smoothed"] = lambda: classifier.predict_p(scores.reshape(-1, 1), smoothing=True, seed=seed)
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats):
        for name, run in rivals.items():
            if name.startswith("crepes") and seconds[name]:
                continue  # once: it takes many seconds
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=int, default=1_000_000, help="scores in the streaming bank")
    parser.add_argument("--queries", type=int, default=20_000, help="segments streamed")
    parser.add_argument("--batch", type=int, default=100_000, help="scores ranked against as many")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write the table into docs/conformal.md")
    args = parser.parse_args()
    batch = {name: statistics.median(s) for name, s in batches(args.batch, args.repeats, args.seed).items()}
    figures: dict[str, Any] = {
        "streaming_us": {
            f"live bank of {args.bank:,}": quantiles_us(streaming_s(args.bank, args.queries, args.seed)),
            "sealed cohorts of 16, window 32": quantiles_us(cohorts_s(16, 32, args.queries, args.seed)),
        },
        "batch": {name: {"s": s, "over_numpy": s / batch["numpy"]} for name, s in batch.items()},
    }
    for kind in ("plain", "smoothed"):
        if f"crepes {kind}" in batch:
            figures["batch"][f"crepes {kind}"]["over_ours"] = batch[f"crepes {kind}"] / batch[kind]
    if "crepes plain" in batch:
        figures["largest_difference_to_crepes"] = agree(AGREE, args.seed)
    if args.record:
        record.write("conformal-speed", table(figures, args.batch))
    if args.json:
        print(json.dumps(figures))
        return
    for name, us in figures["streaming_us"].items():
        print(f"query + insert, {name}: median {us['p50']:.1f} us, p99 {us['p99']:.1f} us")
    for name, row in figures["batch"].items():
        over_ours = f", {row['over_ours']:,.0f} times ours" if "over_ours" in row else ""
        print(f"{args.batch:,} against as many, {name}: {row['s']:.4f} s, {row['over_numpy']:.2f} of numpy{over_ours}")
    if "largest_difference_to_crepes" in figures:
        print(f"largest difference to crepes' plain p-values: {figures['largest_difference_to_crepes']:.1e}")


def table(figures: dict[str, Any], size: int) -> record.Table:
    """Streaming in microseconds, batches as ratios."""
    rows = [
        (f"query and insertion, {name}", f"median {us['p50']:.1f} us, p99 {us['p99']:.1f} us")
        for name, us in figures["streaming_us"].items()
    ]
    batch = figures["batch"]
    for kind in ("plain", "smoothed"):
        if kind in batch:
            name = f"{size:,} p-values against as many scores, {kind}"
            rows.append((name, f"{batch[kind]['over_numpy']:.2f} times NumPy's sort and searchsorted"))
    for kind in ("plain", "smoothed"):
        if f"crepes {kind}" in batch:
            rows.append(
                (f"crepes on the same, {kind}, one run", f"{batch[f'crepes {kind}']['over_ours']:,.0f} times ours")
            )
    says = ""
    if "largest_difference_to_crepes" in figures:
        largest = figures["largest_difference_to_crepes"]
        says = f"Of {AGREE:,} plain p-values the largest difference to crepes' is {largest:.0e}."
    return record.new(record.asked("tests.benchmarks.bench_conformal"), ("what", "figure"), rows, says)


def quantiles_us(seconds: list[float]) -> dict[str, float]:
    return {"p50": 1e6 * float(np.quantile(seconds, 0.5)), "p99": 1e6 * float(np.quantile(seconds, 0.99))}


if __name__ == "__main__":
    main()
