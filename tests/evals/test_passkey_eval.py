"""Passkey retrieval: an oracle finds all, a blind one nothing, and sight is measured where it ends."""

from __future__ import annotations

import pytest
from fakes import FakeLM

from ropewalk.evals.passkey import PasskeySettings, run
from ropewalk.results.cells import Cells


def passkey(lm, **more):
    return run(lm, PasskeySettings(target=4096, **{"distances": 8, "runs": 3, **more}), Cells(None, {}))


def test_an_oracle_finds_every_key_and_a_blind_model_none():
    assert passkey(FakeLM())["summary"]["k_max"] == 4096
    blind = passkey(FakeLM(sight=0))
    assert blind["summary"]["k_max"] == 0 and all(row["rate"] == 0 for row in blind["rows"])


@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize(("sight", "expected"), [(2560, 2560), (2559, 2048), (3000, 2560)])
def test_k_max_is_the_sight_of_a_model_that_sees_so_far(sight, expected, bos):
    """To the token: sight 2,560 sees the key whose first digit is 2,560 tokens from the end, 2,559 not."""
    found = passkey(FakeLM(sight=sight, bos=bos))
    assert found["summary"]["k_max"] == expected == found["summary"]["k_90"]
    assert found["summary"]["grid"] == 512


def test_rows_hold_distance_length_count_and_interval():
    rows = passkey(FakeLM())["rows"]
    assert [row["distance"] for row in rows] == [512 * i for i in range(1, 9)]
    assert [row["real_distance"] for row in rows[:-1]] == [512 * i for i in range(1, 8)]
    assert rows[-1]["real_distance"] < 4096 and rows[-1]["length"] < 4096
    assert rows[0]["n"] == 3 and 0 < rows[0]["low"] < 1 == rows[0]["high"]


def test_keys_are_fresh_at_every_distance_and_follow_the_seed():
    seen = []

    class Watching(FakeLM):
        def generate(self, prompts, new_tokens, decoding=None):
            texts = [self.decode(row) for row in prompts.tolist()]
            seen.extend(text[text.index("key is ") + 7 :][:5] for text in texts)
            return super().generate(prompts, new_tokens)

    passkey(Watching(), seed=1)
    first, seen = seen[:], []
    passkey(Watching(), seed=1)
    assert seen == first and len(set(first)) > 22
    seen = []
    passkey(Watching(), seed=2)
    assert seen != first


def test_the_wrong_number_is_wrong():
    class Wrong(FakeLM):
        def decode(self, ids):
            return super().decode(ids).replace("1", "2") if len(ids) < 10 else super().decode(ids)

    rows = passkey(Wrong(), runs=10)["rows"]
    assert all(row["right"] < 10 for row in rows)


@pytest.mark.parametrize("more", [{}, {"grid": True, "lengths": 2}])
def test_what_is_said_instead_of_the_key_is_kept(more):
    """Prose instead of a number is told from another number; right answers are not kept."""

    class Says(FakeLM):
        def decode(self, ids):
            found = super().decode(ids)
            if len(ids) > 10:
                return found
            return " the one that" if found.strip()[:1] in "123" else found.replace("4", "5")

    found = passkey(Says(), runs=10, **more)
    for row in found["rows"]:
        assert len(row["wrong"]) == row["n"] - row["right"]
    wrong = [text for row in found["rows"] for text in row["wrong"]]
    assert found["summary"]["no_number"] == wrong.count(" the one that") > 0
    assert any(text.strip().isdigit() for text in wrong)
    assert "no_number" not in passkey(FakeLM(), **more)["summary"]


def test_a_killed_passkey_test_goes_on_from_its_last_distance(tmp_path):
    class Dies(FakeLM):
        def generate(self, prompts, new_tokens, decoding=None):
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            self.calls.append((*prompts.shape, new_tokens))
            return super().generate(prompts, new_tokens)

    chosen = PasskeySettings(target=4096, distances=8, runs=3)
    with pytest.raises(KeyboardInterrupt):
        run(Dies(), chosen, Cells(tmp_path / "cells", {}))
    after = Dies()
    after.calls = [(0, 0, 0)] * 4
    assert run(after, chosen, Cells(tmp_path / "cells", {})) == passkey(FakeLM())
    assert len(after.calls) == 4 + 5


def test_the_map_has_every_length_and_depth():
    found = passkey(FakeLM(sight=1500), grid=True, lengths=4, depths=(0.0, 0.5, 1.0))
    assert {(row["length"], row["depth"]) for row in found["rows"]} == {
        (row["length"], d) for row in found["rows"] for d in (0.0, 0.5, 1.0)
    }
    assert len(found["rows"]) == 12
    for row in found["rows"]:
        assert row["rate"] == (1 if row["distance"] <= 1500 else 0)
    assert found["summary"]["length_90"] == sorted({row["length"] for row in found["rows"]})[0]


class Grouping(FakeLM):
    """Answers groups of prompts last first, as a model may."""

    def __init__(self, survived=10**9, **more):
        super().__init__(**more)
        self.survived = survived

    def generate_groups(self, groups, new_tokens):
        for i in reversed(range(len(groups))):
            if len(self.calls) == self.survived:
                raise KeyboardInterrupt
            self.calls.append((i, *groups[i].shape))
            yield i, self.generate(groups[i], new_tokens)


def test_a_map_read_in_groups_is_the_map_and_goes_on_when_killed(tmp_path):
    chosen = PasskeySettings(target=4096, runs=3, grid=True, lengths=4)
    whole = run(FakeLM(sight=1500), chosen, Cells(None, {}))
    assert run(Grouping(sight=1500), chosen, Cells(None, {})) == whole
    with pytest.raises(KeyboardInterrupt):
        run(Grouping(sight=1500, survived=7), chosen, Cells(tmp_path / "cells", {}))
    after = Grouping(sight=1500)
    assert run(after, chosen, Cells(tmp_path / "cells", {})) == whole
    assert len(after.calls) == len(whole["rows"]) - 7
