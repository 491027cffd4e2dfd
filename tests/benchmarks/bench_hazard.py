"""How far a bank of finished segments is from its rate, and its remedies are not (docs/conformal.md).

    python -m tests.benchmarks.bench_hazard [--record]

What `tests/runtime/conformal/test_hazard.py` asserts at some correlations of score and log duration, as rates at
several; half a minute. They hang on seeds and not on the machine.
"""

from __future__ import annotations

import argparse

import numpy as np

from tests.benchmarks import record
from tests.runtime.conformal.test_hazard import adaptive_decisions, rate_of_cohorts, rate_of_finished

COMMAND = "python -m tests.benchmarks.bench_hazard"
CORRELATIONS = (0.0, 0.3, 0.6, 0.9)


def rate_of_adaptive(rho: float) -> float:
    return float(np.mean([decision.taken_over for decision in adaptive_decisions(rho)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the table into docs/conformal.md")
    args = parser.parse_args()
    banks = {
        "bank of finished segments": rate_of_finished,
        "in admission order": lambda rho: rate_of_finished(rho, in_admission_order=True),
        "sealed cohorts, one burst each, lag 1": rate_of_cohorts,
        "adaptive": rate_of_adaptive,
    }
    rows = [(name, *(f"{rate(rho):.3f}" for rho in CORRELATIONS)) for name, rate in banks.items()]
    columns = ("correlation of score and log duration", *(f"{rho:g}" for rho in CORRELATIONS))
    table = record.new(COMMAND, columns, rows)
    if args.record:
        record.write("hazard", table)
    print(table.markdown())


if __name__ == "__main__":
    main()
