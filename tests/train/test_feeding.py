"""Windows become batches: labels, positions, masks, and what attention really sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.data.windows import Window
from ropewalk.train.feeding import Feeder, Layout, is_short, make_batch, read_ahead, skipped_positions
from ropewalk.train.loss import IGNORED, LossModel


def window(ids, starts=()):
    return Window(np.array(ids, dtype=np.int64), tuple(starts))


def test_a_label_is_the_token_behind_and_the_last_has_none():
    batch = make_batch([window([5, 6, 7])], Layout(), 0)
    assert batch["labels"].tolist() == [[6, 7, IGNORED]]
    assert set(batch) == {"input_ids", "labels"}


def test_documents_apart_begin_at_position_zero_and_do_not_predict_each_other():
    batch = make_batch([window([5, 6, 7, 8, 9], [0, 2, 3])], Layout(packing="apart"), 0)
    assert batch["position_ids"].tolist() == [[0, 1, 0, 0, 1]]
    assert batch["labels"].tolist() == [[6, IGNORED, IGNORED, 9, IGNORED]]


@given(st.integers(2, 40), st.integers(0, 200), st.integers(1, 4), st.integers(0, 999))
def test_skipped_positions_rise_stay_below_the_window_and_jump_so_often(length, more, segments, seed):
    segments = min(segments, length)
    found = skipped_positions(length, length + more, segments, np.random.default_rng(seed))
    steps = np.diff(found)
    assert found[0] == 0
    assert (steps >= 1).all()
    assert found[-1] < length + more
    assert (steps > 1).sum() <= segments - 1


def test_skipped_positions_reach_every_distance_of_the_window():
    rng = np.random.default_rng(0)
    reached = [int(skipped_positions(64, 1024, 2, rng)[-1]) for _ in range(2000)]
    assert min(reached) < 80
    assert max(reached) > 1008
    assert np.histogram(reached, bins=8, range=(63, 1024))[0].min() > 180


@pytest.mark.parametrize("density, changed", [(0.0, 0), (0.25, 40), (1.0, 40)])
def test_passages_come_back_in_every_window_where_asked_and_the_labels_follow(density, changed):
    rows = [window(range(64 * n, 64 * n + 64)) for n in range(40)]
    batches = [make_batch(rows[n : n + 4], Layout(repeats=density), n) for n in range(0, 40, 4)]
    ids = torch.cat([batch["input_ids"] for batch in batches])
    plain = torch.arange(40 * 64).view(40, 64)
    assert int((ids != plain).any(dim=1).sum()) == changed
    assert all((batch["labels"][:, :-1] == batch["input_ids"][:, 1:]).all() for batch in batches)


def test_the_passages_are_the_same_whatever_the_size_of_a_micro_batch():
    """The windows are numbered, so that resuming and other machines train on the same text."""
    alone, pairs = (fed(Layout(repeats=0.5, seed=3), micro)["input_ids"] for micro in (1, 2))
    assert (alone == pairs).all() and (alone != torch.arange(512).view(8, 64)).any()


def fed(layout, micro):
    """8 windows of 64 tokens as batches of ``micro``, put together again."""
    rows = [window(range(64 * n, 64 * n + 64)) for n in range(8)]
    batches = [make_batch(rows[n : n + micro], layout, n) for n in range(0, 8, micro)]
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.parametrize(
    "layout",
    [
        Layout(short_share=0.5, original=64, batch=4, steps=2),
        Layout(short_share=1.0, short_share_end=0.0, original=16, batch=8, steps=1),
        Layout(repeats=0.0, repeats_end=3.0, batch=4, steps=2),
        Layout(skip_to=256, batch=4, steps=2),
        Layout(skip_to=256, short_share=1.0, batch=4, steps=2),
    ],
    ids=["short", "falling", "repeats", "skip", "skip-short"],
)
def test_the_data_are_the_same_whatever_the_size_of_a_micro_batch(layout):
    """Which goes by the memory that is free, and by the number of processes."""
    one, *others = (fed(layout, micro) for micro in (1, 2, 4))
    for other in others:
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


class Numbers:
    """Stands for a mixture: window n holds n alone."""

    passes = 0

    def __init__(self):
        self.read = 0

    def __next__(self):
        self.read += 1
        return window([self.read] * 8)

    def state(self):
        return {"read": self.read}

    def restore(self, state):
        self.read = state["read"]


@pytest.mark.parametrize(("micro", "ranks"), [(4, 1), (1, 1), (2, 1), (1, 2), (2, 2)])
def test_going_on_with_another_micro_batch_reads_what_was_not_yet_read(micro, ranks):
    """And cuts it, and gives it positions, as without the stop."""
    layout = Layout(short_share=0.5, original=4, repeats_end=4.0, steps=6, batch=4)

    def steps(feeder, count):
        return [batch["input_ids"].view(-1, 8) for batch, _ in zip(feeder, range(count))]

    whole = Feeder(Numbers(), layout, micro=4, accumulate=1)
    first = Feeder(Numbers(), layout, micro=4, accumulate=1)
    expected = torch.cat(steps(whole, 6))[12:]
    steps(first, 3)
    found = []
    for rank in range(ranks):
        again = Feeder(Numbers(), layout, micro=micro, accumulate=4 // micro // ranks, rank=rank, ranks=ranks)
        again.restore(first.state(3))
        found += steps(again, 3 * 4 // micro // ranks)
    assert sorted(torch.cat(found).tolist()) == sorted(expected.tolist())


def test_a_step_is_short_as_a_whole_and_every_window_has_jumps_of_its_own():
    layout = Layout(short_share=0.5, original=16, batch=4, steps=2)
    rows = [window(range(64 * n, 64 * n + 64)) for n in range(8)]
    lengths = [make_batch([row], layout, n)["input_ids"].shape[1] for n, row in enumerate(rows)]
    assert lengths == [64] * 4 + [16] * 4
    positions = fed(Layout(skip_to=256, batch=4), 4)["position_ids"]
    assert len({tuple(row.tolist()) for row in positions}) == 8


def test_a_density_of_repeats_that_rises_has_its_mean_in_all_and_most_at_the_end():
    layout = Layout(repeats=0.0, repeats_end=2.0, steps=8)
    plain = torch.arange(4096)
    batches = [make_batch([window(plain.numpy())], layout, n)["input_ids"] for n in range(8)]
    changed = [int((ids != plain).sum()) for ids in batches]
    mean = make_batch([window(plain.numpy())], Layout(repeats=1.0), 0)["input_ids"]
    assert sum(changed) == pytest.approx(8 * int((mean != plain).sum()), rel=0.25)
    assert changed[0] < 0.2 * changed[7] and changed[3] < changed[7]


@given(st.floats(0, 1), st.integers(1, 300))
def test_the_share_of_short_steps_is_kept_from_the_first_on(share, count):
    assert abs(sum(is_short(n, share) for n in range(count)) - count * share) < 1 + 1e-6


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 300))
def test_a_share_that_changes_is_kept_by_every_beginning_of_the_training(share, end, total):
    """The first n of N steps hold the sum of their shares: n·share - (share - end)·n²/2N."""
    found = np.cumsum([is_short(n, share, end, total) for n in range(total)])
    n = np.arange(1, total + 1)
    assert np.abs(found - (n * share - (share - end) * n * n / (2 * total))).max() < 1 + 1e-6


def test_short_batches_are_the_same_tokens_in_rows_of_the_original_window():
    layout = Layout(short_share=1.0, original=4)
    batch = make_batch([window(range(10, 20)), window(range(20, 30))], layout, 0)
    assert batch["input_ids"].shape == (6, 4)
    assert batch["input_ids"].flatten().tolist()[:12] == [*range(10, 20), 0, 0]
    assert batch["labels"][2].tolist() == [19, IGNORED, IGNORED, IGNORED]
    assert (batch["labels"] != IGNORED).sum() == 2 * (10 - 3)


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=60,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
            rope_parameters=rope,
        )
    ).eval()


def hidden_of(model, batch):
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    return model.model(**inputs, use_cache=False).last_hidden_state


@torch.no_grad()
def test_over_a_jump_of_positions_attention_is_causal_over_the_whole_chunk(llama):
    """Each token sees all before it, those before the jump too, and none behind it; the mask is needed."""
    ids = list(np.random.default_rng(1).integers(1, 60, 24))
    batch = make_batch([window(ids)], Layout(skip_to=256, seed=3), 0)
    jump = int((batch["position_ids"][0].diff() > 1).nonzero()[0]) + 1
    whole = hidden_of(llama, batch)
    for at in (0, jump - 1, jump):
        changed = {k: v.clone() for k, v in batch.items()}
        changed["input_ids"][0, at] = (changed["input_ids"][0, at] + 1) % 60
        differs = (hidden_of(llama, changed) - whole)[0].abs().amax(-1) > 1e-7
        assert differs.tolist() == [t >= at for t in range(24)], at
    unmasked = hidden_of(llama, {k: v for k, v in batch.items() if k != "attention_mask"})
    assert (unmasked - whole).abs().max() > 1e-4  # the trap: a jump taken for a new document


@torch.no_grad()
def test_skipped_positions_are_those_that_the_long_window_rotates_by(llama):
    """A chunk with jumps gives what the tokens give in place, with the rest of the window masked out."""
    ids = torch.from_numpy(np.random.default_rng(1).integers(1, 60, 24))
    batch = make_batch([window(ids.numpy())], Layout(skip_to=256, seed=3), 0)
    positions = batch["position_ids"][0]
    long = torch.ones(1, 256, dtype=torch.int64)
    long[0, positions] = ids
    seen = torch.zeros(1, 256, dtype=torch.int64)
    seen[0, positions] = 1
    place = torch.arange(256)[None]
    in_place = llama.model(input_ids=long, attention_mask=seen, position_ids=place, use_cache=False)
    torch.testing.assert_close(
        hidden_of(llama, batch)[0], in_place.last_hidden_state[0, positions], rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_the_loss_of_documents_apart_is_that_of_each_alone(llama):
    rng = np.random.default_rng(1)
    parts = [rng.integers(1, 60, n) for n in (9, 5, 10)]
    batch = make_batch([window(np.concatenate(parts), [0, 9, 14])], Layout(packing="apart"), 0)
    model = LossModel(llama)
    alone = [make_batch([window(part)], Layout(), 0) for part in parts]
    together = model(**batch, num_items_in_batch=1)["loss"]
    apart = sum(model(**one, num_items_in_batch=1)["loss"] for one in alone)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    joined = model(**make_batch([window(np.concatenate(parts))], Layout(), 0), num_items_in_batch=1)["loss"]
    assert (joined - apart).abs() > 0.1


def test_reading_ahead_changes_nothing_and_hands_errors_on():
    def batches():
        yield from ({"n": torch.tensor(i)} for i in range(5))
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for batch in read_ahead(batches(), 2):
            found.append(int(batch["n"]))
    assert found == [0, 1, 2, 3, 4]
