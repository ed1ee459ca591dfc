"""doctor: a checkpoint with exactly one fault gets exactly that finding; --fix leaves none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from tiny_checkpoints import edit, gguf, llama, read

from ropewalk.errors import UserError
from ropewalk.verbs.doctor import doctor
from ropewalk.verbs.extend import extend

LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 50_000.0}


def codes(result: dict) -> list[str]:
    return [finding["code"] for finding in result["findings"]]


def _whole(place: Path) -> None:
    """A proper extended checkpoint of 256 tokens, with no record of ours."""
    llama(place, rope_parameters=LINEAR, max_position_embeddings=256)
    edit(place / "tokenizer_config.json", model_max_length=256)


def _extended(place: Path) -> None:
    extend(str(llama(place.parent / "source")), str(place), to=256)


def _published_lost_theta(place: Path) -> None:
    """The published case: `linear` added under rope_parameters, and the base is gone."""
    _whole(place)
    edit(place / "config.json", rope_parameters={"rope_type": "linear", "factor": 4.0})


def _two_keys(place: Path) -> None:
    """rope_scaling added to a config that has rope_parameters: rope_scaling wins, and the base is gone."""
    _whole(place)
    edit(
        place / "config.json",
        rope_parameters=LINEAR,
        rope_scaling={"rope_type": "linear", "factor": 2.0, "rope_theta": 50_000.0},
    )


def _integer(place: Path) -> None:
    _whole(place)
    edit(place / "config.json", rope_parameters={**LINEAR, "factor": 4})


def _stale(place: Path) -> None:
    """The window of the time before the scaling, with a tokenizer that knows better."""
    _whole(place)
    edit(place / "config.json", max_position_embeddings=64)


def _stale_record(place: Path) -> None:
    _extended(place)
    edit(place / "config.json", max_position_embeddings=64)


def _stale_yarn(place: Path) -> None:
    llama(place)
    yarn = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e4, "original_max_position_embeddings": 64}
    edit(place / "config.json", rope_parameters={**yarn, "beta_fast": 4.0})
    edit(place / "tokenizer_config.json", model_max_length=256)


def _twice(place: Path) -> None:
    _extended(place)
    edit(place / "config.json", rope_parameters={**LINEAR, "factor": 16.0}, rope_scaling=None)


def _twice_without_record(place: Path) -> None:
    _whole(place)
    edit(
        place / "config.json",
        rope_parameters={**LINEAR, "factor": 16.0},
        original_max_position_embeddings=64,
    )


def _not_at_all(place: Path) -> None:
    _extended(place)
    plain = {"rope_type": "default", "rope_theta": 50_000.0}
    edit(place / "config.json", rope_parameters=plain, rope_scaling=None)


def _short_tokenizer(place: Path) -> None:
    _whole(place)
    edit(place / "tokenizer_config.json", model_max_length=64)


def _cutting_tokenizer(place: Path) -> None:
    _whole(place)
    cut = {"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 0}
    edit(place / "tokenizer.json", truncation=cut)


def _bos(place: Path) -> None:
    _whole(place)
    edit(place / "tokenizer_config.json", add_bos_token=False)


FAULTS = {
    "theta-lost": _published_lost_theta,
    "two-scalings": _two_keys,
    "integer-factor": _integer,
    "stale-window": _stale,
    "stale-window by its record": _stale_record,
    "stale-window of yarn": _stale_yarn,
    "scaled-twice": _twice,
    "scaled-twice without a record": _twice_without_record,
    "not-scaled": _not_at_all,
    "tokenizer-length": _short_tokenizer,
    "tokenizer-length by truncation": _cutting_tokenizer,
    "bos": _bos,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_with_one_fault_gets_that_finding_alone_and_fix_leaves_none(
    fault: str, tmp_path: Path
) -> None:
    FAULTS[fault](tmp_path / "model")
    found = doctor(str(tmp_path / "model"), fix=str(tmp_path / "fixed"), base=50_000.0)
    assert codes(found) == [fault.split()[0]]
    assert found["exit_code"] == 1
    again = doctor(str(tmp_path / "fixed"))
    assert (again["findings"], again["exit_code"]) == ([], 0)
    assert (again["window"], again["factor"], again["base"]) == (256, 4.0, 50_000.0)
    for name in ("model", "fixed"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == (
            tmp_path / "fixed" / "model.safetensors"
        ).read_bytes()


def test_fix_asks_for_a_base_that_no_file_states_and_writes_nothing(tmp_path: Path) -> None:
    _published_lost_theta(tmp_path / "model")
    with pytest.raises(UserError, match="--base"):
        doctor(str(tmp_path / "model"), fix=str(tmp_path / "fixed"))
    assert not (tmp_path / "fixed").exists()


def test_a_base_that_only_rope_parameters_has_is_taken_from_there(tmp_path: Path) -> None:
    """rope_scaling without theta beside rope_parameters with it: two findings, repaired without --base."""
    _whole(tmp_path / "model")
    scaling = {"rope_type": "linear", "factor": 4.0}
    edit(tmp_path / "model" / "config.json", rope_scaling=scaling)
    found = doctor(str(tmp_path / "model"), fix=str(tmp_path / "fixed"))
    assert set(codes(found)) == {"two-scalings", "theta-lost"}
    assert found["base"] == 10_000.0
    assert doctor(str(tmp_path / "fixed"))["base"] == 50_000.0


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": LINEAR, "rope_scaling": LINEAR, "rope_theta": 5e4},
        {"rope_parameters": None, "rope_theta": 5e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 4.0}},
    ],
    ids=["both keys alike", "old style with theta", "old style from before theta"],
)
def test_configs_that_mean_what_they_say_have_no_finding(changes: dict, tmp_path: Path) -> None:
    _whole(tmp_path / "model")
    edit(tmp_path / "model" / "config.json", **changes)
    assert codes(doctor(str(tmp_path / "model"))) == []


def test_an_adapter_without_its_scaling_is_found(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert codes(doctor(str(adapter))) == ["adapter-without-scaling"]
    _whole(tmp_path / "long")
    (adapter / "config.json").write_text((tmp_path / "long" / "config.json").read_text())
    found = doctor(str(adapter))
    assert codes(found) == ["adapter-without-scaling"]
    assert "linear ×4" in found["findings"][0]["text"] and "applies none" in found["findings"][0]["text"]
    with pytest.raises(UserError, match="merge"):
        doctor(str(adapter), fix=str(tmp_path / "fixed"))
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "long")})
    )
    assert codes(doctor(str(adapter))) == []


def test_a_gguf_whose_scaling_transformers_would_ignore_is_found_and_fixed(tmp_path: Path) -> None:
    found = doctor(str(gguf(tmp_path / "m.gguf", scaling=4.0)), fix=str(tmp_path / "fixed"))
    assert codes(found) == ["not-scaled"]
    again = doctor(str(tmp_path / "fixed"))
    assert (again["method"], again["factor"], codes(again)) == ("linear", 4.0, [])


def test_the_facts_are_those_of_the_file(tmp_path: Path) -> None:
    _whole(tmp_path / "model")
    found = doctor(str(tmp_path / "model"))
    assert (found["window"], found["original_window"], found["method"]) == (256, 64, "linear")
    assert found["where"] == "rope_parameters"
    # base 50,000, d = 8: wavelengths 2π·50000^(j/4) = 6.3, 94, 1405, 21009; three exceed 64
    assert (found["incomplete"]["pairs"], found["incomplete"]["of"]) == (3, 4)
    windows = {engine["engine"]: (engine["window"], engine["flag"]) for engine in found["engines"]}
    assert windows == {
        "transformers": (256, ""),
        "vLLM": (1024, "--max-model-len 256"),
        "SGLang": (1024, "--context-length 256"),
        "llama.cpp": (256, ""),
    }
    assert [row["error"] for row in found["tables"]] == [0.0]
    assert found["tables"][0]["positions"] == (0, 128, 255)


def test_a_rotary_table_that_is_not_the_method_named_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    right = ROPE_INIT_FUNCTIONS["linear"]

    def wrong(*args, **kwargs):
        frequencies, attention = right(*args, **kwargs)
        return frequencies * 1.001, attention

    monkeypatch.setitem(ROPE_INIT_FUNCTIONS, "linear", wrong)
    _whole(tmp_path / "model")
    assert codes(doctor(str(tmp_path / "model"))) == ["tables-differ"]


def test_no_weight_is_read(tmp_path: Path) -> None:
    _whole(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert codes(doctor(str(tmp_path / "model"))) == []
    assert read(tmp_path / "model" / "config.json")["max_position_embeddings"] == 256
