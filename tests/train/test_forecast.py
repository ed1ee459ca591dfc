"""Spreads over cards, and the refusal of a window that cannot fit, with what would."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_llama import write_tiny_model

from ropewalk.errors import UserError
from ropewalk.model.shape import Shape
from ropewalk.train.cards import find_card
from ropewalk.train.forecast import (
    Question,
    chosen,
    cures,
    fewest_cards,
    longest_window,
    refusal,
    way,
    ways,
)
from ropewalk.train.memory import SAVINGS, Load, host_bytes, least, need, saved
from ropewalk.verbs.finetune import Finetune, _room

LLAMA = Shape(4096, 32, 11008, 32, 32, 128, 32000, False, 4096)
FULL = Load(6_738_415_616, 6_738_415_616, 8192)
ASKED = Question(LLAMA, FULL.parameters, 8_388_608, 32_768, 64, 100, find_card("H100"))


def test_the_fewest_cards_fit_and_half_of_them_do_not():
    for lora, window in ((False, 131_072), (True, 1 << 21)):
        cards = fewest_cards(replace(ASKED, window=window), lora)
        assert cards > 1
        for number, fits in ((cards, True), (cards // 2, False)):
            asked = replace(ASKED, window=window, cards=number)
            assert way(asked, lora=lora, recompute=True).fits == fits


def test_cards_hold_copies_where_these_fit_then_parts_then_parts_of_windows():
    spreads = []
    for lora, cards, window in ((True, 2, 32_768), (False, 4, 32_768), (True, 8, 262_144)):
        spreads.append(way(replace(ASKED, cards=cards, window=window), lora=lora, recompute=True).spread)
    assert spreads[:2] == ["whole copies", "parts of the weights"]
    assert spreads[2].startswith("parts of the weights, windows over")


def test_what_does_not_fit_recomputed_is_tried_in_tiles_then_with_inputs_on_the_host():
    """LoRA on 7B and one H100: the window decides, and each saving is taken only when it is needed."""
    found = [
        way(replace(ASKED, window=1024 * n, batch=1), lora=True, recompute=True)
        for n in (32, 96, 112, 128, 256)
    ]
    assert all(one.fits for one in found)
    savings = [SAVINGS.index({k: getattr(one.load, k) for k in SAVINGS[0]}) for one in found]
    assert savings == sorted(savings) and set(savings) == set(range(len(SAVINGS)))
    plain, host = found[0], found[-1]
    assert host.name == "LoRA, recomputed, tiles of 2,048, layers' inputs on the host"
    assert host_bytes(LLAMA, plain.load) == 0 and host_bytes(LLAMA, host.load) == 32 * 2 * 4096 * (256 << 10)


def test_every_cure_is_one():
    found = ways(ASKED)
    assert not chosen(found, False).fits
    said = cures(ASKED, False)
    assert any("--lora" in one for one in said) and chosen(found, True).fits
    length = longest_window(ASKED, True)
    assert way(replace(ASKED, window=length), lora=True, recompute=True).fits


def test_a_refusal_names_what_would_fit_and_nothing_that_fits_is_refused():
    memory = 80 << 30
    reason = refusal(LLAMA, FULL, memory)
    assert reason is not None and "--lora" in reason and "8,192 tokens" in reason and "GB" in reason
    adapters = replace(FULL, trained=8_388_608)
    assert refusal(LLAMA, adapters, memory) is None
    assert refusal(LLAMA, FULL, need(LLAMA, least(FULL)) + (1 << 30)) is None
    far = refusal(LLAMA, replace(adapters, length=1 << 22), memory)
    assert far is not None and "--window" in far and "--lora" not in far


def test_finetune_says_so_before_weights_load(tmp_path, monkeypatch):
    """On a GPU with 2 GB free a window of a million tokens is refused, and --micro-batch 1 tries it."""
    import torch

    path = write_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2_000_000_000, 2_000_000_000))
    settings = Finetune(model=str(path), out="out", data=("stdlib",))
    with pytest.raises(UserError, match=r"a window of 1,048,576 tokens needs .* what would fit: --window"):
        _room(settings, path, 10_000, 1 << 20, 1, "cuda")
    tried = _room(replace(settings, micro_batch=1), path, 10_000, 1 << 20, 1, "cuda")[1]
    assert (tried.rows, tried.recompute, tried.tile, tried.offload) == (1, True, 2048, True)
    easy = _room(settings, path, 10_000, 64, 4, "cuda")[1]
    assert (easy.rows, easy.recompute, easy.tile, easy.offload) == (4, False, 0, False)


def test_what_is_kept_of_attention_follows_memory_and_how_windows_are_shared():
    """Two cards that share a window gather for attention and cannot keep it; `saved` leaves it out."""
    load = replace(FULL, trained=8_388_608, recompute=True, length=4096)
    assert saved(LLAMA, load, 80 << 30).attention_kept
    assert not saved(LLAMA, load, 80 << 30, context=2).attention_kept
    shared = way(replace(ASKED, cards=8, window=1 << 19, batch=1), lora=True, recompute=True)
    assert shared.context > 1 and not shared.load.attention_kept


@pytest.mark.parametrize(("free", "kept"), [(80, True), (2, False)])
def test_only_some_weights_never_go_in_tiles_by_themselves(tmp_path, monkeypatch, free, kept):
    """With --only the sum counts all weights as trained: too high a reason for the slow forms."""
    import torch

    path = write_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free << 30, free << 30))
    asked = Finetune(
        model=str(path), out="out", data=("stdlib",), only=("norm",), recompute=True, micro_batch=1
    )
    load = _room(asked, path, 10_000, 1 << 19, 1, "cuda")[1]
    assert (load.attention_kept, load.tile, load.offload) == (kept, 0, False)
