"""Passkeys by choice: sight is measured where it ends, whatever the model would say."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import FakeLM, tiny_checkpoint

from ropewalk.data.passkey import Prompt
from ropewalk.errors import UserError
from ropewalk.evals import passkey, passkey_choice
from ropewalk.evals.passkey_choice import OTHERS, PasskeySettings, run
from ropewalk.model.choosing import NONE, behind, padded, read_whole
from ropewalk.model.lm import TransformersLM
from ropewalk.results.cells import Cells


class Reads(FakeLM):
    """Says nothing but prose, yet a key in its last ``sight`` tokens is likelier to it than another."""

    def log_probs(self, windows, scored):
        self.calls.append((*windows.shape, scored))
        found = torch.full((len(windows), scored), -math.log(self.vocab))
        for row, ids in zip(found, windows.tolist()):
            seen = self.decode(ids[max(0, len(ids) - self.sight) : -scored])
            row += 0.1 * (self.decode(ids[-scored:]).strip() + ". Remember" in seen)
        return found

    def generate(self, prompts, new_tokens, decoding=None):
        return torch.tensor([[ord(c) for c in " the one that is"[:new_tokens]]] * len(prompts))


def chosen(lm, **more):
    return run(lm, PasskeySettings(target=4096, **{"distances": 8, "runs": 3, **more}), Cells(None, {}))


@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize(("sight", "expected"), [(10**9, 4096), (2560, 2560), (2559, 2048)])
def test_k_choice_is_the_sight_of_a_model_that_answers_in_prose(sight, expected, bos):
    """To the token, where the paper's test finds nothing at all."""
    lm = Reads(sight=sight, bos=bos)
    found = chosen(lm)
    assert found["summary"]["k_choice"] == expected
    assert found["summary"]["right"] == 3 * expected // 512 and found["summary"]["n"] == 24
    said = passkey.run(lm, PasskeySettings(target=4096, distances=8, runs=3), Cells(None, {}))
    assert said["summary"]["k_max"] == 0 and said["summary"]["no_number"] == 24


def test_a_model_to_which_all_are_alike_has_chosen_nothing():
    found = chosen(FakeLM())
    assert found["summary"]["right"] == 0 == found["summary"]["k_choice"]
    assert {row["margin"] for row in found["rows"]} == {0.0}


def test_guessing_is_right_one_time_in_ten():
    class Guesses(FakeLM):
        def log_probs(self, windows, scored):
            return torch.tensor([[hash(tuple(ids[-6:])) % 1009 / 1009] for ids in windows.tolist()])

    found = chosen(Guesses(), runs=40)["summary"]
    assert found["n"] == 320 and 0.05 < found["right"] / found["n"] < 0.16
    assert found["k_choice"] == 0 and found["chance"] == 0.1


def test_nine_others_that_are_no_key_of_the_place():
    asked = []

    class Watching(FakeLM):
        def log_probs(self, windows, scored):
            asked.append([self.decode(ids) for ids in windows.tolist()])
            return super().log_probs(windows, scored)

    chosen(Watching(), distances=2)
    for texts in asked:
        keys = {text.split("pass key is ")[1][:5] for text in texts}
        options = [text[-5:] for text in texts]
        assert len(texts) == 3 * (1 + OTHERS) and len(keys) == 3
        assert options[:: 1 + OTHERS] == [text.split("pass key is ")[1][:5] for text in texts[:: 1 + OTHERS]]
        others = {option for i, option in enumerate(options) if i % (1 + OTHERS)}
        assert len(others) == OTHERS and not others & keys


def test_a_number_that_is_drawn_and_a_key_is_no_other():
    settings, place = PasskeySettings(target=4096), ("distance/512", 512, 0.0)
    drawn = passkey_choice._others(settings, place, [])
    others = passkey_choice._others(settings, place, [Prompt([], drawn[0], 0, 0)])
    assert drawn[0] not in others and others[:8] == drawn[1:] and len(others) == OTHERS


def test_numbers_that_are_not_finite_are_no_choice():
    class Broken(FakeLM):
        def log_probs(self, windows, scored):
            return torch.full((len(windows), scored), math.nan)

    with pytest.raises(UserError, match="not finite; try --dtype float32"):
        chosen(Broken())


def test_a_killed_test_goes_on_from_its_last_distance(tmp_path):
    class Dies(Reads):
        def log_probs(self, windows, scored):
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().log_probs(windows, scored)

    settings = PasskeySettings(target=4096, distances=8, runs=3)
    with pytest.raises(KeyboardInterrupt):
        run(Dies(), settings, Cells(tmp_path / "cells", {}))
    after = Reads()
    assert run(after, settings, Cells(tmp_path / "cells", {})) == chosen(Reads())
    assert len(after.calls) == 5


def test_settings_that_cannot_be_are_named_by_their_evaluation():
    with pytest.raises(UserError, match=r"passkey-choice\.runs is 0"):
        passkey_choice.check(PasskeySettings(target=4096, runs=0), {})


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return TransformersLM(tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "m"))


@pytest.fixture(scope="module")
def prompts(lm):
    return torch.randint(1, lm.vocab, (3, 40), generator=torch.Generator().manual_seed(0))


OPTIONS = padded([[[5, 6, 7], [8], [9, 10]], [[5], [6], [7, 8, 9]], [[1, 2], [3, 4], [5, 6]]])


@pytest.mark.parametrize("goes_back", [True, False])
def test_options_along_a_row_weigh_as_each_whole_window_does(lm, prompts, monkeypatch, goes_back):
    monkeypatch.setitem(lm.__dict__, "_cache_can_go_back", goes_back)
    cuts, tails = [10, 10, 30], [[5, 6, 9], [7], [8]]
    along = lm.log_probs_along(prompts, cuts, tails, OPTIONS)
    for i, (cut, tail) in enumerate(zip(cuts, tails)):
        for row in range(3):
            for j in range(3):
                option = OPTIONS[row, j][OPTIONS[row, j] != NONE].tolist()
                window = torch.tensor([[*prompts[row, :cut].tolist(), *tail, *option]])
                alone = lm.log_probs(window, len(option)).sum()
                torch.testing.assert_close(along[row, i, j], alone, atol=1e-4, rtol=1e-5)


def test_weighing_leaves_the_cache_as_it_was(lm, prompts):
    from ropewalk.model.cache import make_cache

    with torch.inference_mode():
        cache = make_cache(lm.model.config, 50)
        lm.model(input_ids=prompts[:, :-1], past_key_values=cache, use_cache=True)
        first = behind(lm.model, prompts[:, -1:], cache, OPTIONS)
        assert cache.get_seq_length() == 39
        assert torch.equal(behind(lm.model, prompts[:, -1:], cache, OPTIONS), first)
    torch.testing.assert_close(read_whole(lm.log_probs, prompts, OPTIONS), first, atol=1e-4, rtol=1e-5)


def test_keys_that_are_shared_are_weighed_alike_along_one_prompt_and_alone(lm, monkeypatch):
    settings = PasskeySettings(target=600, distances=6, runs=2, shared_keys=True)
    together = run(lm, settings, Cells(None, {}))
    monkeypatch.setattr(passkey_choice, "_read_along", lambda *args: None)
    alone = run(lm, settings, Cells(None, {}))
    assert [row["right"] for row in together["rows"]] == [row["right"] for row in alone["rows"]]
    for one, other in zip(together["rows"], alone["rows"]):
        assert one["margin"] == pytest.approx(other["margin"], abs=1e-4)
