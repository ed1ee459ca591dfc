"""Rate, batch, schedule and rows at once follow from the model's size as documented."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.train.memory import choose, divisor
from ropewalk.train.rates import batch_size, peak_rate, schedule_factor


@pytest.mark.parametrize(
    ("parameters", "rate"),
    [(3_443_136, 5e-4), (134_515_008, 6e-4), (6_738_415_616, 2e-5), (13e9, 2e-5), (33e9, 1e-5), (70e9, 1e-5)],
)
def test_the_rate_is_the_measured_or_the_paper_s_where_there_is_one(parameters, rate):
    assert peak_rate(int(parameters))[0] == pytest.approx(rate, rel=0.06)


@given(st.integers(135_000_000, 10**11), st.floats(1, 10))
def test_beyond_135M_a_larger_model_never_gets_a_higher_rate(parameters, more):
    assert peak_rate(int(parameters * more))[0] <= peak_rate(parameters)[0]


def test_the_batch_is_the_paper_s_for_large_models_and_counted_in_tokens_for_small_ones():
    assert batch_size(7_000_000_000, 8192)[0] == 64
    assert batch_size(134_515_008, 16_384)[0] == 8
    assert batch_size(3_443_136, 2048)[0] == 4
    assert batch_size(3_443_136, 32_768)[0] == 1


@given(st.sampled_from(["constant", "linear", "cosine", "wsd"]), st.integers(1, 500), st.integers(0, 100))
def test_the_schedule_warms_up_from_a_tenth_and_stays_between_zero_and_one(schedule, steps, warmup):
    factors = [schedule_factor(s, steps=steps, warmup=warmup, schedule=schedule) for s in range(steps + 1)]
    assert factors[0] == (0.1 if warmup else 1.0)
    assert all(0 <= factor <= 1 for factor in factors)
    rising = factors[: min(warmup, steps) + 1]
    assert rising == sorted(rising)
    if schedule != "constant" and warmup < steps:
        assert factors[-1] == pytest.approx(0)


def test_wsd_is_constant_until_the_last_fifth_and_then_falls_in_a_line():
    factors = [schedule_factor(s, steps=100, warmup=10, schedule="wsd") for s in range(101)]
    assert set(factors[10:81]) == {1.0}
    assert factors[90] == pytest.approx(0.5)
    assert factors[100] == 0


SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
SMOLLM2 |= {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152}


def test_rows_at_once_fill_the_memory_and_no_more():
    sizes = {"parameters": 135_000_000, "trained": 135_000_000, "recompute": None}
    assert choose(SMOLLM2, **sizes, length=32_768, rows=4, memory=80 << 30) == (1, False)
    assert choose(SMOLLM2, **sizes, length=16_384, rows=8, memory=80 << 30) == (2, False)
    assert choose(SMOLLM2, **sizes, length=131_072, rows=1, memory=80 << 30) == (1, True)
    assert choose(SMOLLM2, **sizes, length=2_048, rows=64, memory=None) == (4, False)


@given(st.integers(1, 500), st.integers(1, 500))
def test_rows_at_once_divide_the_batch(rows, limit):
    found = divisor(rows, limit)
    assert rows % found == 0
    assert 1 <= found <= max(1, limit)
