"""On the recorded answers of 1,600 real chains every disagreement of the two columns has a class, and none is unknown.

The traces are data, no part of the project: the folder is named by ATTS_TRACES, by default ``../shared/traces`` from
the repository's root, and without it all of this is skipped.
"""

from __future__ import annotations

import pandas as pd
import pytest

from tests.benchmarks.bench_answers import EQUAL, NEITHER, TRACES, compared

TRACE = TRACES / "pair_math500_raw.samples.parquet"
pytestmark = pytest.mark.skipif(not TRACE.exists(), reason=f"no published traces in {TRACES}; set ATTS_TRACES")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return compared(TRACE, 5.0)


def test_the_columns_agree_wherever_the_regular_expression_read_a_whole_answer(table: pd.DataFrame) -> None:
    classes = table["verdict"].value_counts().to_dict()
    assert classes == {
        EQUAL: 1283,
        "cut at a brace": 197,
        NEITHER: 62,
        "one of several values": 23,
        "no answer by regex": 20,
        "no answer by the LLM": 12,
        "another value": 3,
    }


def test_an_answer_that_was_cut_is_the_start_of_a_longer_one(table: pd.DataFrame) -> None:
    cut = table[table["verdict"] == "cut at a brace"]
    assert all(regex.count("{") > regex.count("}") for regex in cut["regex"])
    assert not any(llm.count("{") > llm.count("}") for llm in cut["llm"])


def test_the_final_answer_is_the_language_models(table: pd.DataFrame) -> None:
    assert (table["final"] == table["llm"]).all()
