"""The real language model behind the protocol, on a tiny random Llama."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from fakes import tiny_checkpoint
from transformers import LlamaForCausalLM, TemperatureLogitsWarper, TopPLogitsWarper

from ropewalk.data.passkey import PasskeyPrompts, draw_keys
from ropewalk.errors import UserError
from ropewalk.model import lm as lm_module
from ropewalk.model.cache import make_cache
from ropewalk.model.decoding import Decoding
from ropewalk.model.lm import TransformersLM
from ropewalk.model.parallel import SplitLM


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model", window=512)


@pytest.fixture(scope="module")
def lm(place):
    return TransformersLM(place)


@pytest.fixture(scope="module")
def windows(lm):
    return torch.randint(0, lm.vocab, (5, 96), generator=torch.Generator().manual_seed(0))


def reference(place, windows, scored):
    """transformers' own full float32 logits."""
    model = LlamaForCausalLM.from_pretrained(place).eval()
    with torch.no_grad():
        rows = model(windows).logits.float().log_softmax(-1)[:, :-1]
    return rows.gather(-1, windows[:, 1:, None])[..., 0][:, -scored:]


@pytest.mark.parametrize("scored", [1, 16, 95])
def test_log_probs_are_those_of_full_logits(lm, place, windows, scored):
    found = lm.log_probs(windows, scored)
    assert found.shape == (5, scored) and found.dtype == torch.float32
    torch.testing.assert_close(found, reference(place, windows, scored), atol=2e-5, rtol=1e-5)


def test_log_probs_are_the_same_for_every_batch_and_chunk_of_rows(lm, windows, monkeypatch):
    expected = lm.log_probs(windows, 40)
    monkeypatch.setitem(lm._limits, ("score", 96), 2)
    torch.testing.assert_close(lm.log_probs(windows, 40), expected, atol=1e-5, rtol=0)
    monkeypatch.setattr(lm_module, "CPU_LOGITS", 7 * lm.vocab)
    torch.testing.assert_close(lm.log_probs(windows, 40), expected, atol=1e-5, rtol=0)


def test_only_the_scored_rows_go_through_the_output_head(lm, windows):
    rows = []
    hook = lm.model.lm_head.register_forward_hook(lambda m, args, out: rows.append(out.shape[:-1].numel()))
    lm.log_probs(windows, 16)
    hook.remove()
    assert sum(rows) == 5 * 16


def test_a_family_that_scales_its_logits_is_scored_rightly(tmp_path):
    """Granite divides its logits: the head alone would be wrong, so the whole model is asked."""
    from transformers import GraniteConfig, GraniteForCausalLM

    place = tiny_checkpoint(tmp_path / "m")
    torch.manual_seed(1)
    config = GraniteConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, logits_scaling=8.0, initializer_range=0.3,
    )  # fmt: skip
    model = GraniteForCausalLM(config).eval()
    model.save_pretrained(place)
    lm = TransformersLM(place)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        full = model(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    assert not lm._plain_head
    torch.testing.assert_close(lm.log_probs(ids, 39)[0], full, atol=2e-5, rtol=1e-5)


def test_when_memory_runs_out_the_batch_is_halved_and_the_size_kept(lm, windows, monkeypatch):
    expected = lm.log_probs(windows, 8)
    sizes, real = [], lm._score

    def small(part, scored):
        sizes.append(len(part))
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(part, scored)

    monkeypatch.setattr(lm, "_score", small)
    monkeypatch.setattr(lm, "_limits", {("score", 96): 5})
    torch.testing.assert_close(lm.log_probs(windows, 8), expected, atol=1e-5, rtol=0)
    assert sizes == [5, 2, 1, 1, 1, 1, 1]
    assert lm._limits["score", 96] == 1
    monkeypatch.setattr(lm, "_score", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(UserError, match="does not fit the memory"):
        lm.log_probs(windows, 8)


def test_any_other_error_is_not_taken_for_lack_of_memory(lm, windows, monkeypatch):
    monkeypatch.setattr(lm, "_score", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        lm.log_probs(windows, 8)


def test_answers_are_transformers_own_greedy_ones(lm, place, windows):
    model = LlamaForCausalLM.from_pretrained(place).eval()
    expected = model.generate(
        windows, attention_mask=torch.ones_like(windows), do_sample=False, max_new_tokens=9,
        eos_token_id=None, pad_token_id=0,
    )[:, 96:]  # fmt: skip
    assert torch.equal(lm.generate(windows, 9), expected)


def stopping(lm, place, windows) -> int:
    """A token that some rows say soon, and others not."""
    said = lm.generate(windows, 12)
    for token in said[:, 2:6].flatten().tolist():
        rows = (said == token).any(dim=1)
        if 0 < int(rows.sum()) < len(rows):
            return token
    raise AssertionError("the model says the same in every row")


def test_answers_end_where_transformers_own_end(lm, place, windows):
    stop = stopping(lm, place, windows)
    model = LlamaForCausalLM.from_pretrained(place).eval()
    expected = model.generate(
        windows, attention_mask=torch.ones_like(windows), do_sample=False, max_new_tokens=12,
        eos_token_id=stop, pad_token_id=stop,
    )[:, 96:]  # fmt: skip
    found = lm.generate(windows, 12, Decoding(stop=(stop,)))
    assert torch.equal(found[:, : expected.shape[1]], expected)
    assert (found[:, expected.shape[1] :] == stop).all()


def test_rows_that_have_stopped_are_computed_no_more(lm, place, windows):
    stop = stopping(lm, place, windows)
    sizes = []
    hook = lm.model.lm_head.register_forward_hook(lambda m, args, out: sizes.append(len(out)))
    found = lm.generate(windows, 12, Decoding(stop=(stop,)))
    hook.remove()
    going = [sum(stop not in row[:step] for row in found.tolist()) for step in range(12)]
    assert sizes == [rows for rows in going if rows] and sizes[-1] < 5
    hook = lm.model.lm_head.register_forward_hook(lambda m, args, out: sizes.append(len(out)))
    sizes.clear()
    lm.generate(windows[:1], 12, Decoding(stop=tuple(range(lm.vocab))))
    hook.remove()
    assert sizes == [1]


def ragged(lm, lengths=(96, 40, 41, 3, 96)):
    return [torch.randint(0, lm.vocab, (n,), generator=torch.Generator().manual_seed(n + i)).tolist()
            for i, n in enumerate(lengths)]  # fmt: skip


def test_prompts_of_different_lengths_side_by_side_are_answered_as_alone(lm, monkeypatch):
    prompts = ragged(lm)
    alone = torch.cat([lm.generate(torch.tensor([ids]), 10) for ids in prompts])
    monkeypatch.setattr(lm, "generate", None)  # none of it goes one by one
    monkeypatch.setitem(lm._limits, ("generate", 96), 5)
    assert torch.equal(lm.generate_each(prompts, 10), alone)
    monkeypatch.setitem(lm._limits, ("generate", 96), 2)
    assert torch.equal(lm.generate_each(prompts, 10), alone)


def test_side_by_side_each_row_has_its_own_seed_and_its_own_end(lm, monkeypatch):
    prompts, seeds = ragged(lm), (5, 6, 7, 8, 9)
    plain = lm.generate_each(prompts, 10, Decoding(0.9, 0.95, seeds))
    stop = int(plain[1, 3])
    how = [Decoding(0.9, 0.95, (seed,), (stop,)) for seed in seeds]
    alone = torch.cat([lm.generate(torch.tensor([ids]), 10, one) for ids, one in zip(prompts, how)])
    monkeypatch.setitem(lm._limits, ("generate", 96), 5)
    sizes = []
    hook = lm.model.lm_head.register_forward_hook(lambda m, args, out: sizes.append(len(out)))
    found = lm.generate_each(prompts, 10, Decoding(0.9, 0.95, seeds, (stop,)))
    hook.remove()
    assert torch.equal(found, alone)
    assert sizes[0] == 5 and sizes[-1] < 5  # a row that has ended is computed no more


def test_a_prompt_of_one_token_is_answered_too(lm):
    prompts = [[5], [5, 6, 7]]
    alone = torch.cat([lm.generate(torch.tensor([ids]), 4) for ids in prompts])
    assert torch.equal(lm.generate_each(prompts, 4), alone)


def test_sampled_answers_depend_on_their_prompt_and_seed_alone(lm, windows, monkeypatch):
    seeds = (11, 12, 13, 14, 15)
    whole = lm.generate(windows, 8, Decoding(0.8, 0.9, seeds))
    turned = lm.generate(windows.flip(0), 8, Decoding(0.8, 0.9, seeds[::-1])).flip(0)
    monkeypatch.setitem(lm._limits, ("generate", 96), 2)
    assert torch.equal(lm.generate(windows, 8, Decoding(0.8, 0.9, seeds)), whole)
    assert torch.equal(turned, whole)
    assert not torch.equal(lm.generate(windows, 8, Decoding(0.8, 0.9, (1, 2, 3, 4, 5))), whole)
    assert not torch.equal(lm.generate(windows, 8), whole)
    assert torch.equal(lm.generate(windows, 8, Decoding(1e-4, 0.9, seeds)), lm.generate(windows, 8))


def test_the_first_sampled_token_has_the_probability_that_transformers_gives_it(lm, place, windows):
    """400 seeds at one prompt: each token's count within five standard deviations of what is expected."""
    model = LlamaForCausalLM.from_pretrained(place).eval()
    with torch.no_grad():
        logits = model(windows[:1]).logits[0, -1:]
    expected = TopPLogitsWarper(0.9)(None, TemperatureLogitsWarper(0.5)(None, logits)).softmax(-1)[0]
    found = lm.generate(windows[:1].expand(400, -1), 1, Decoding(0.5, 0.9, tuple(range(400))))[:, 0]
    counts = torch.bincount(found, minlength=lm.vocab)
    assert not counts[expected == 0].any() and (counts > 0).sum() > 3
    assert ((counts - 400 * expected).abs() <= 5 * (400 * expected).sqrt() + 1e-6).all()


def test_answers_to_groups_are_those_of_each_group_alone(lm, windows):
    """One haystack with a needle at several places, one of another length, and one group all alike."""
    base = windows[0].repeat(2)[:150]
    groups = []
    for cut, length in ((0, 120), (60, 120), (100, 120), (119, 120), (60, 150)):
        group = base[:length].repeat(3, 1)
        group[:, cut : cut + 4] = torch.arange(12).reshape(3, 4)[:, : length - cut]
        groups.append(group)
    groups.append(base.repeat(2, 1))
    found = dict(lm.generate_groups(groups, 5))
    assert sorted(found) == list(range(6))
    for i, group in enumerate(groups):
        assert torch.equal(found[i], lm.generate(group, 5))


def test_what_groups_share_at_their_start_is_read_once(lm, windows):
    base = windows[0]
    groups = [torch.cat([base[:cut].repeat(4, 1), windows[:4, : 96 - cut]], dim=1) for cut in (50, 80)]
    tokens = []
    hook = lm.model.model.embed_tokens.register_forward_hook(
        lambda m, args, out: tokens.append(args[0].numel())
    )
    list(lm.generate_groups(groups, 1))
    hook.remove()
    assert tokens == [50, 4 * 46, 30, 4 * 16]


def test_groups_are_read_alone_where_a_cache_cannot_go_back(lm, windows, monkeypatch):
    groups = [windows[:1].repeat(2, 1), windows[:1, :50].repeat(3, 1)]
    expected = dict(lm.generate_groups(groups, 4))
    monkeypatch.setitem(lm.__dict__, "_cache_can_go_back", False)
    monkeypatch.setattr(lm, "_after", None)
    found = dict(lm.generate_groups(groups, 4))
    assert all(torch.equal(found[i], expected[i]) for i in (0, 1))


@pytest.fixture(scope="module")
def dynamic(place, tmp_path_factory):
    """The same model with dynamic scaling from a window of 64 tokens."""
    path = tmp_path_factory.mktemp("dynamic") / "model"
    shutil.copytree(place, path)
    config = json.loads((path / "config.json").read_text())
    config["max_position_embeddings"] = 64
    config["rope_parameters"] = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_with_dynamic_scaling_the_order_of_calls_changes_nothing(dynamic, windows):
    """transformers keeps the table of the longest call: 80 tokens after 96 would not be 80 tokens alone."""
    parts = [windows[:, :n] for n in (40, 80, 96)]
    up, down = TransformersLM(dynamic), TransformersLM(dynamic)
    scores = [up.log_probs(part, 9) for part in parts], [down.log_probs(part, 9) for part in parts[::-1]]
    said = [up.generate(part, 9) for part in parts], [down.generate(part, 9) for part in parts[::-1]]
    for a, b in zip(scores[0] + said[0], scores[1][::-1] + said[1][::-1]):
        assert torch.equal(a, b)
    for part, found in zip(parts, scores[0]):
        torch.testing.assert_close(found, reference(dynamic, part, 9), atol=2e-5, rtol=1e-5)
    groups = dict(down.generate_groups([windows[:1].repeat(2, 1), windows[:1, :80]], 4))
    assert torch.equal(groups[1], TransformersLM(dynamic).generate(windows[:1, :80], 4))


def test_answers_along_a_row_are_those_of_each_prompt_alone(lm, windows):
    tails = [[5, 9, 200], [7], [5, 9, 200, 3, 3], [8, 8], [1]]
    cuts = [10, 11, 11, 40, 96]
    along = lm.generate_along(windows, cuts, tails, 6)
    for i, (cut, tail) in enumerate(zip(cuts, tails)):
        prompts = torch.cat([windows[:, :cut], torch.tensor(tail).expand(5, -1)], dim=1)
        assert torch.equal(along[:, i], lm.generate(prompts, 6))


def test_where_a_cache_cannot_go_back_each_prompt_is_read_alone(lm, windows, monkeypatch):
    expected = lm.generate_along(windows, [10, 40], [[5], [6, 7]], 4)
    monkeypatch.setitem(lm.__dict__, "_cache_can_go_back", False)
    monkeypatch.setattr(lm, "_along", None)
    assert torch.equal(lm.generate_along(windows, [10, 40], [[5], [6, 7]], 4), expected)


def test_a_cache_with_room_holds_what_a_growing_one_holds(lm):
    from transformers.cache_utils import DynamicCache

    config = lm.model.config
    grown, reserved = DynamicCache(config=config), make_cache(config, 20)
    for layer in (0, 1):
        for step in (7, 1, 4):
            states = torch.randn(2, 2, step, 8)
            for a, b in zip(grown.update(states, -states, layer), reserved.update(states, -states, layer)):
                assert torch.equal(a, b)
    for cache in (grown, reserved):
        cache.crop(-5)
    assert reserved.get_seq_length() == grown.get_seq_length() == 7
    more = torch.randn(2, 2, 3, 8)
    assert torch.equal(reserved.update(more, more, 1)[0], grown.update(more, more, 1)[0])
    with pytest.raises(AssertionError, match="cache for 20"):
        reserved.update(torch.randn(2, 2, 14, 8), torch.randn(2, 2, 14, 8), 1)


def test_bos_is_what_the_tokenizer_puts_in_front(lm, tmp_path):
    assert lm.bos is None
    assert TransformersLM(tiny_checkpoint(tmp_path / "b", bos=True)).bos == 0
    assert lm.encode("The grass") == lm.tokenizer("The grass", add_special_tokens=False)["input_ids"]
    assert lm.decode(lm.encode("The grass is green. 12345")) == "The grass is green. 12345"


def test_passkey_prompts_are_exact_with_a_real_tokenizer(lm):
    maker = PasskeyPrompts(lm, 2048)
    for key in draw_keys(5, 0):
        prompt = maker.at_distance(700, key)
        place = len(prompt.ids) + maker.room - 700
        assert lm.decode(prompt.ids[place : place + 5]) == key
        assert maker.room == len(lm.encode(f" {key}"))


def test_what_it_says_of_itself_is_the_models_block(lm):
    assert lm.describe()["window"] == 512 == lm.window and lm.describe()["hash"] == lm.block["hash"]
    assert lm.vocab == lm.model.lm_head.weight.shape[0]


def test_copies_on_several_devices_give_what_one_gives(lm, place, windows):
    split = SplitLM([lm, TransformersLM(place), TransformersLM(place)])
    split.prepare(10**12)
    assert split.vocab == lm.vocab and not split.compiled
    torch.testing.assert_close(split.log_probs(windows, 9), lm.log_probs(windows, 9), atol=1e-5, rtol=0)
    assert split.log_probs(windows[:2], 9).shape == (2, 9)  # fewer rows than copies
    assert torch.equal(split.generate(windows, 4), lm.generate(windows, 4))
    drawn = Decoding(0.7, seeds=(1, 2, 3, 4, 5))
    assert torch.equal(split.generate(windows, 4, drawn), lm.generate(windows, 4, drawn))
    each = [row[: 20 + 7 * i].tolist() for i, row in enumerate(windows)]
    assert torch.equal(split.generate_each(each, 4, drawn), lm.generate_each(each, 4, drawn))
    along = split.generate_along(windows, [10, 40], [[5], [6, 7]], 4)
    assert torch.equal(along, lm.generate_along(windows, [10, 40], [[5], [6, 7]], 4))
    options = windows[:, :6].view(5, 2, 3)
    weighed = [one.log_probs_along(windows, [10, 40], [[5], [6, 7]], options) for one in (split, lm)]
    torch.testing.assert_close(*weighed, atol=1e-5, rtol=1e-5)


def test_compiling_is_decided_by_the_amount_of_work(place):
    lm = TransformersLM(place)
    lm.prepare(10**14)
    assert not lm.compiled  # never on the CPU unasked
    lm.device = "cuda"
    lm.prepare(10**4)
    assert not lm.compiled
    lm.prepare(10**14)
    assert lm.compiled


@pytest.mark.slow
def test_compiled_layers_give_the_same_values(place, windows, lm):
    compiled = TransformersLM(place, compiled=True)
    compiled._limits["score", 96] = 2
    torch.testing.assert_close(compiled.log_probs(windows, 9), lm.log_probs(windows, 9), atol=1e-4, rtol=0)
    assert torch.equal(compiled.generate(windows, 4), lm.generate(windows, 4))


@pytest.mark.slow
def test_where_nothing_can_be_compiled_the_values_are_the_same(place, windows, lm, tmp_path):
    """As on a machine without a C compiler."""
    torch.save(windows, tmp_path / "windows.pt")
    script = (
        "import sys, torch; from ropewalk.model.lm import TransformersLM; place, windows, out = sys.argv[1:];"
        "lm = TransformersLM(place, compiled=True); torch.save(lm.log_probs(torch.load(windows), 9), out)"
    )
    names = [str(place), str(tmp_path / "windows.pt"), str(tmp_path / "found.pt")]
    without = {**os.environ, "CXX": "/no/compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    subprocess.run([sys.executable, "-c", script, *names], env=without, check=True)
    found = torch.load(tmp_path / "found.pt")
    torch.testing.assert_close(found, lm.log_probs(windows, 9), atol=1e-4, rtol=0)
