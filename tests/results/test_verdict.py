"""The verdict says what the results say, good or bad."""

from __future__ import annotations

import fake_results as fake
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.results.collection import collect
from ropewalk.results.verdict import (
    SHARED_KEYS,
    TOLERANCE,
    pooled,
    sureness,
    usable_by_perplexity,
    verdict,
    verdict_of,
)


def results(*, reach=2048, values=None, with_original=True, kind="tuned"):
    """Original and extended models, perplexity and passkey."""
    original, longer = fake.model("base", "original"), fake.model("longer", kind)
    found = [
        fake.perplexity(longer, values or fake.PERPLEXITY[kind]),
        fake.passkey(longer, reach),
    ]
    if with_original:
        found += [fake.perplexity(original, fake.PERPLEXITY["original"]), fake.passkey(original, 512)]
    return found


def test_a_model_that_reads_its_whole_window_is_said_to():
    found = verdict_of(results())
    assert found["status"] == "longer"
    assert found["usable"]["before"] == 512
    assert found["usable"]["after"] == 2048
    assert found["passkey"]["k_max"] == 2048
    assert found["passkey"]["before"] == 512
    assert found["sentence"].startswith(
        "longer reads 2,048 tokens, 4× as many as before (512): perplexity falls"
    )
    assert "with every doubling (9.41 → 8.68 → 8.49)" in found["sentence"]
    assert "the passkey is found at every distance (k_max 2,048, original 512; " in found["sentence"]


def test_keys_that_are_read_but_not_answered_are_said():
    """By choice the model reads its whole window, by its answers half of it."""
    chosen = fake.passkey_choice(fake.model("longer", "tuned"), 2048)
    found = verdict_of([*results(reach=1024), chosen])
    said = "found only up to 1,024 of 2,048 tokens back, though by choice among ten it is read up to 2,048 ("
    assert said in found["sentence"]
    near = fake.passkey_choice(fake.model("longer", "tuned"), 1024)
    assert "by choice" not in verdict_of([*results(reach=1024), near])["sentence"]


def test_rates_carry_n_and_interval():
    found = verdict_of(results())
    total = found["passkey"]["pooled"]
    assert total["n"] == 320
    assert 0 < total["low"] < total["rate"] < total["high"] <= 1
    assert f"{total['right']} of 320 right, 95 % interval" in found["sentence"]


def test_a_passkey_lost_halfway_is_said():
    found = verdict_of(results(reach=1024))
    assert found["status"] == "partly"
    assert found["usable"]["after"] == found["passkey"]["k_max"] < 2048
    assert "reads 1,024 of its 2,048 tokens" in found["sentence"]
    assert "only up to 1,024 of 2,048 tokens back" in found["sentence"]


def test_a_perplexity_that_rises_is_said_with_place_and_size():
    found = verdict_of(results(values={512: 9.0, 1024: 8.5, 2048: 9.35}))
    assert found["status"] == "partly"
    assert found["usable"]["after"] == 1024
    assert "perplexity rises at 2,048 (8.50 to 9.35, +10 %)" in found["sentence"]


def test_an_original_that_finds_every_key_that_fits_is_usable_to_its_window():
    """A prompt is longer than its distance: of 448 and 512 tokens back only the first fits into 512."""
    found = results()
    rows = found[3]["rows"]
    assert rows[6]["distance"] == 448
    for row in rows[7:]:
        row.update(right=0, rate=0.0)
    found[3]["summary"]["k_max"] = 448
    judged = verdict_of(found)
    assert judged["usable"]["before"] == 512
    assert judged["passkey"]["before"] == 448
    rows[6].update(right=0, rate=0.0)
    found[3]["summary"]["k_max"] = 384
    assert verdict_of(found)["usable"]["before"] == 384


def test_a_perplexity_that_stays_level_is_not_said_to_rise_nor_to_fall():
    found = verdict_of(results(values={512: 9.0, 1024: 8.5, 2048: 8.5}))
    assert found["status"] == "longer"
    assert "perplexity does not rise with context (9.00 → 8.50 → 8.50)" in found["sentence"]


def test_a_window_that_was_never_measured_is_not_called_a_failure():
    """Both models measured at the old window only: nothing is known of the new one, good or bad."""
    original, longer = fake.model("base", "original"), fake.model("longer", "tuned", window=1024)
    found = [fake.perplexity(original, {512: 8.31}), fake.perplexity(longer, {512: 9.41})]
    judged = verdict_of(found)
    assert judged["status"] == "not measured beyond" and judged["usable"]["open"]
    assert judged["headline"] == "longer reads well up to 512, the longest measured; 1,024 was not measured"
    assert "no further" not in judged["sentence"] and "work" not in judged["label"]
    found[1] = fake.perplexity(longer, {512: 40.0})
    assert "was measured only up to 512" in verdict_of(found)["headline"]
    found[1] = fake.perplexity(longer, {512: 9.41})
    assert verdict_of([*found, fake.passkey(longer, 0, 1024)])["status"] == "no gain"
    assert verdict_of([*found, fake.passkey(longer, 1024, 1024)])["status"] == "not measured beyond"
    found[1] = fake.perplexity(longer, {256: 9.0, 512: 12.0})
    assert verdict_of(found)["status"] == "no gain"


def test_a_model_that_finds_nothing_gained_nothing():
    found = verdict_of(results(reach=0))
    assert found["status"] == "no gain"
    assert "not found even at the shortest distance" in found["sentence"]


def test_a_level_perplexity_far_above_the_original_is_not_called_reading():
    """Untrained interpolation: 40.1, 40.3, 41.0 stays level but the old window was at 8.31."""
    found = verdict_of(results(kind="pi"))
    assert found["status"] == "partly"
    assert found["sentence"].startswith("longer does not read its 2,048 tokens well")
    assert found["cost"]["share"] == pytest.approx(40.1 / 8.31 - 1)


def test_the_cost_at_the_old_window_is_against_the_original():
    found = verdict_of(results())
    assert found["cost"]["context"] == 512
    assert found["cost"]["share"] == pytest.approx(9.41 / 8.31 - 1)
    assert "costs 13 % of perplexity (8.31 → 9.41)" in found["sentence"]


def test_the_cost_has_an_interval_where_both_list_their_documents():
    found = results()
    for one, scale in zip((found[0], found[2]), (1.12, 1.0)):
        losses = [scale * 2000.0 * (1 + i % 3) + (i * i if scale > 1 else i) for i in range(8)]
        one["summary"] = {
            "by_document": {"512": {"loss": losses, "n": [1000.0 * (1 + i % 3) for i in range(8)]}}
        }
    cost = verdict_of(found)["cost"]
    assert cost["low"] is not None
    assert cost["low"] < cost["high"]


def test_without_the_original_there_is_no_cost_and_the_old_window_is_the_configs():
    found = verdict_of(results(with_original=False))
    assert found["cost"] is None
    assert found["usable"]["before"] == 512
    assert not found["usable"]["before_measured"]


def test_perplexities_of_other_protocols_are_not_set_against_each_other():
    found = results()
    found[2]["protocol"]["stride"] = 512
    assert verdict_of(found)["cost"] is None
    assert verdict_of(found)["perplexity"][0]["before"] is None


def test_nothing_measured_is_said():
    found = verdict_of([fake.training(fake.model("m", "tuned"))])
    assert found["status"] == "not measured"
    assert found["sentence"] == "m was not measured: neither perplexity nor passkey results are here."


def test_an_original_alone_is_not_called_lengthened():
    original = fake.model("base", "original")
    found = verdict_of([fake.perplexity(original, {512: 8.31})])
    assert found["status"] == "not longer"


def test_the_subject_is_the_tuned_interpolated_model_whatever_the_order():
    found = fake.everything()
    forwards = verdict(collect([("a", one) for one in found]))
    backwards = verdict(collect([("a", one) for one in reversed(found)]))
    assert forwards == backwards
    assert forwards["subject"] == "pi-2048"
    assert forwards["baseline"] == "base-512"


def test_direct_fine_tuning_alone_is_judged_too():
    direct, original = fake.model("direct", "direct"), fake.model("base", "original")
    found = verdict_of(
        [
            fake.passkey(direct, 704),
            fake.passkey(original, 512),
            fake.perplexity(direct, fake.PERPLEXITY["direct"]),
        ]
    )
    assert found["subject"] == "direct"
    assert found["status"] == "partly"


@given(st.lists(st.floats(1.01, 1e4), min_size=1, max_size=8))
def test_usable_is_the_last_context_before_the_first_rise_above_the_tolerance(values):
    rows = [{"context": 512 * 2**i, "perplexity": value} for i, value in enumerate(values)]
    reached = usable_by_perplexity(rows)
    inside = [row["perplexity"] for row in rows if row["context"] <= reached]
    after = [row["perplexity"] for row in rows if row["context"] > reached]
    assert inside
    assert all(value <= min(inside[: i + 1]) * (1 + TOLERANCE) for i, value in enumerate(inside))
    assert not after or after[0] > min(inside) * (1 + TOLERANCE)


def test_the_same_keys_at_every_distance_give_no_interval_over_all_prompts():
    one = fake.passkey(fake.model("longer", "tuned"), 1024)
    series = collect([("a", one)]).of("passkey")[""][0]
    fresh = pooled(series)
    series.protocol["keys"] = SHARED_KEYS
    shared = pooled(series)
    assert fresh["low"] < fresh["rate"] < fresh["high"]
    assert shared["low"] is None and shared["rate"] == fresh["rate"]
    assert "interval" not in sureness(shared)
