"""What the engine keeps of chains and prompts, and what it lets go first."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control.events import ChainId
from atts_runtime.engines.chains import ChainStore, Held, common_prefix

IDS = st.lists(st.integers(0, 2), max_size=8)


def held(n: int, **options: bool) -> Held:
    """`n` ids whose KV, shape [layers, 2, kv_heads, n, head_dim], numbers its positions."""
    kv = torch.arange(n, dtype=torch.float32).reshape(1, 1, 1, n, 1).expand(2, 2, 1, n, 4).clone()
    return Held(list(range(n)), kv, torch.zeros(5), seen=n, **options)


def parked(store: ChainStore, index: int, n: int) -> Held:
    entry = store.open(ChainId(0, index), None)
    full = held(n)
    entry.ids, entry.kv, entry.logits, entry.seen = full.ids, full.kv, full.logits, n
    return entry


def computed(store: ChainStore, ids: tuple[int, ...]) -> Held:
    entry = store.prompt(ids)
    full = held(len(ids))
    entry.ids, entry.kv, entry.logits, entry.seen = list(ids), full.kv, full.logits, len(ids)
    return entry


@given(IDS, IDS)
def test_the_common_prefix_is_the_longest_that_both_begin_with(a: list[int], b: list[int]) -> None:
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


@given(IDS, IDS)
def test_a_list_that_continues_another_shares_all_of_it(a: list[int], b: list[int]) -> None:
    assert common_prefix(a, a + b) == common_prefix(a + b, a) == len(a)


@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_crop_keeps_ids_and_kv_of_one_length_and_forgets_what_came_next(length: int) -> None:
    entry = held(5)
    entry.crop(length)
    assert entry.ids == list(range(length))
    assert entry.logits is None
    assert entry.seen == 5
    if length == 0:
        assert entry.kv is None
    else:
        assert entry.kv is not None
        assert entry.kv.shape[3] == length
        assert entry.kv[0, 0, 0, :, 0].tolist() == entry.ids


@pytest.mark.parametrize("length", [5, 9])
def test_a_crop_to_no_less_than_there_is_changes_nothing(length: int) -> None:
    entry = held(5)
    kv, logits = entry.kv, entry.logits
    entry.crop(length)
    assert (entry.ids, entry.kv, entry.logits) == (list(range(5)), kv, logits)


def test_a_chain_starts_from_its_prompt_without_a_copy() -> None:
    store = ChainStore(None)
    prompt = computed(store, (3, 1, 4))
    chains = [store.open(ChainId(0, i), prompt) for i in range(4)]
    assert all(chain.kv is prompt.kv and chain.ids == [3, 1, 4] and chain.shared for chain in chains)
    assert store.tokens == 3
    chains[0].ids.append(1)
    assert prompt.ids == [3, 1, 4]


def test_a_chain_is_found_until_it_is_dropped() -> None:
    store = ChainStore(None)
    assert store.chain(ChainId(0, 1)) is None
    entry = parked(store, 1, 4)
    assert store.chain(ChainId(0, 1)) is entry
    store.drop(ChainId(0, 1))
    store.drop(ChainId(0, 1))
    assert store.chain(ChainId(0, 1)) is None
    assert store.tokens == 0


def test_without_a_budget_nothing_is_evicted() -> None:
    store = ChainStore(None)
    for i in range(5):
        parked(store, i, 100)
    store.settle()
    assert (store.tokens, store.peak_tokens, store.evictions) == (500, 500, 0)


def test_the_least_recently_used_chain_goes_first() -> None:
    store = ChainStore(25)
    entries = [parked(store, i, 10) for i in range(3)]
    store.chain(ChainId(0, 0))
    store.settle()
    assert [entry.kv is None for entry in entries] == [False, True, False]
    assert entries[1].ids == []
    assert entries[1].seen == 10
    assert (store.tokens, store.peak_tokens, store.evictions) == (20, 30, 1)


def test_prompts_go_before_chains() -> None:
    store = ChainStore(12)
    chain = parked(store, 0, 10)
    prompt = computed(store, (1, 2, 3))
    store.settle()
    assert prompt.kv is None
    assert chain.kv is not None


def test_what_was_evicted_is_remembered_as_seen() -> None:
    entry = held(5, shared=True)
    entry.clear()
    assert (entry.ids, entry.kv, entry.logits, entry.seen, entry.shared) == ([], None, None, 5, False)


def test_busy_entries_stay_whatever_the_budget() -> None:
    store = ChainStore(0)
    chain, prompt = parked(store, 0, 10), computed(store, (1, 2, 3))
    chain.busy = prompt.busy = True
    store.settle()
    assert store.tokens == 13
    chain.busy = prompt.busy = False
    store.settle()
    assert store.tokens == 0


def test_a_prompt_that_calls_wait_for_stays_and_a_chain_goes_instead() -> None:
    store = ChainStore(12)
    chain, prompt = parked(store, 0, 10), computed(store, (1, 2, 3))
    store.settle(awaited={prompt})
    assert prompt.kv is not None
    assert chain.kv is None
