"""doctor: what positions will this checkpoint really get, from every engine? No weight is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import __version__, console
from ..errors import UserError
from ..files import fingerprint, new_directory, require_ours, write_record
from ..settings import option, to_record, verb

EXAMPLE = """ropewalk doctor path/to/model
  ropewalk doctor path/to/model --fix repaired-model"""


@dataclass(frozen=True)
class Doctor:
    """Look at a checkpoint's positions: window, base, scaling, and what each engine makes of them.

    Builds transformers' rotary tables on an empty model and compares them with the method named.
    Exit code 1 when something is wrong; every finding comes with its cure.
    """

    model: str = option(help="checkpoint directory, Hub id, GGUF file, or an adapter", positional=True)
    fix: Path | None = option(None, help="write a corrected checkpoint there (same weights)")
    base: float | None = option(None, help="the model's own rope_theta, for --fix where it is lost")


@verb(Doctor)
def doctor(settings: Doctor) -> dict[str, Any]:
    """Print and return what was found; writes only with ``fix``."""
    from ..model.checkpoint import require_other
    from ..model.config import read_state
    from ..model.engines import views
    from ..model.inspect import Evidence, adapter_findings, config_findings, gather, gguf_findings
    from ..model.inspect import table_findings as wrong_tables
    from ..model.load import read_config
    from ..model.notes import notes_about
    from ..model.source import config_source
    from ..model.tables import compare_tables

    if settings.fix is not None:
        require_other(Path(settings.model), settings.fix)
        require_ours(settings.fix, "doctor", "convert")
    found = config_source(settings.model)
    if (found.path / "adapter_config.json").is_file() and not (found.path / "config.json").is_file():
        if settings.fix is not None:
            raise UserError(
                f"{found.path} is an adapter, which cannot be repaired alone: merge it into its base"
            )
        return _report(found.name, {}, adapter_findings(found.path), [])
    if found.kind == "gguf":
        config, findings = gguf_findings(found.path)
        evidence = Evidence()
    else:
        config = read_config(found.path)
        evidence = gather(found.path)
        findings = config_findings(config, read_state(config), evidence)
        if (found.path / "adapter_config.json").is_file():
            findings += adapter_findings(found.path)
    state = read_state(config)
    tables = compare_tables(config, state)
    findings += wrong_tables(tables)
    engines = [asdict(view) for view in views(config)]
    if found.kind == "gguf" and findings:
        engines[0] |= {
            "scaling": "none (ignores the file's)",
            "right": False,
            "flag": "a converted checkpoint",
        }
    facts = {
        **_facts(state),
        "engines": engines,
        "tables": [{**asdict(row), "right": row.right} for row in tables],
    }
    notes = notes_about(found.path if found.kind != "gguf" else None, config, state)
    result = _report(found.name, facts, findings, notes)
    if settings.fix is not None:
        result["fixed"] = _fix(settings, found, config, evidence, findings)
    return result


def _facts(state: Any) -> dict[str, Any]:
    """The positions of a checkpoint as plain values; wavelengths of the global layers before the scaling."""
    from ..model.scaling import rotated
    from ..rope.frequencies import inverse_frequencies, turns, wavelengths

    d = rotated(state, state.parameters)
    plain = inverse_frequencies(d, state.base)
    incomplete = turns(plain, state.original_window) < 1
    lengths = wavelengths(plain)
    return {
        "family": state.family,
        "window": state.window,
        "original_window": state.original_window,
        "stated_window": state.stated,
        "base": state.base,
        "method": state.method,
        "factor": state.factor,
        "where": state.where,
        "head_dim": state.head_dim,
        "rotary_dim": d,
        "layers": state.layers,
        "incomplete": {
            "pairs": int(incomplete.sum()),
            "of": d // 2,
            "shortest": float(lengths[incomplete].min()) if bool(incomplete.any()) else None,
            "longest": float(lengths.max()),
        },
    }


def _report(name: str, facts: dict[str, Any], findings: list[Any], notes: list[str]) -> dict[str, Any]:
    """Print what was found; the verb's result."""
    from ..model.engines import in_words

    if facts:
        _tell_facts(name, facts)
        if "" not in facts["layers"]:
            for layer, own in facts["layers"].items():
                console.say(f"  {layer}: {in_words(own)}, base {float(own['rope_theta']):,.10g}")
        rows = [
            (e["engine"], f"{e['window']:,}", e["scaling"], "as meant" if e["right"] else f"pass {e['flag']}")
            for e in facts["engines"]
        ]
        console.table("What each engine takes", ("engine", "window", "scaling", "verdict"), rows)
        for row in facts["tables"]:
            what = "not comparable" if row["error"] is None else f"largest difference {row['error']:.2g}"
            places = ", ".join(f"{p:,}" for p in row["positions"])
            console.say(f"rotary table{' ' + row['layer'] if row['layer'] else ''} at {places}: {what}")
    for note in notes:
        console.say(f"note: {note}")
    for finding in findings:
        console.say(f"FINDING {finding.code}: {finding.text}")
        console.say(f"  cure: {finding.cure}")
    if not findings:
        console.say(f"{name}: nothing wrong with its positions")
    return {
        "model": name,
        **facts,
        "notes": notes,
        "findings": [finding.as_dict() for finding in findings],
        "exit_code": 1 if findings else 0,
    }


def _tell_facts(name: str, facts: dict[str, Any]) -> None:
    console.say(f"{name}: {facts['family']}, window {facts['window']:,} tokens, read from {facts['where']}")
    console.say(
        f"base {facts['base']:,.10g}, {facts['rotary_dim']} of {facts['head_dim']} head dimensions rotated, "
        f"method {facts['method']}, factor {facts['factor']:g} on {facts['original_window']:,} tokens"
    )
    slow = facts["incomplete"]
    if slow["pairs"]:
        console.say(
            f"{slow['pairs']} of {slow['of']} pairs of dimensions never completed a turn in "
            f"{facts['original_window']:,} tokens (wavelengths {slow['shortest']:,.0f} to "
            f"{slow['longest']:,.0f}): past that window they reach angles never seen in training"
        )
    else:
        console.say(
            f"all {slow['of']} pairs of dimensions completed a turn in {facts['original_window']:,} tokens"
        )


def _fix(settings: Doctor, found: Any, config: dict[str, Any], evidence: Any, findings: list[Any]) -> str:
    """Write the corrected checkpoint and look at it again. Raises UserError when findings remain."""
    from ..model import convert
    from ..model.checkpoint import require_other
    from ..model.inspect import inspect_directory
    from ..model.load import model_block
    from ..model.repair import repaired_config, write_repaired
    from ..model.source import resolve

    assert settings.fix is not None
    out = settings.fix
    if any(finding.code == "adapter-without-scaling" for finding in findings):
        raise UserError("an adapter cannot be repaired alone: merge it into a base that has the scaling")
    if found.kind == "gguf":
        convert.to_checkpoint(found, out)
        console.say(f"wrote {out}: the GGUF as a checkpoint, its scaling in config.json")
        return str(out)
    if found.kind == "hub":
        found = resolve(settings.model)
    require_other(found.path, out)
    right = repaired_config(config, evidence, findings, settings.base)
    with new_directory(out, "doctor") as place:
        write_repaired(found.path, place, right, evidence, findings)
        left = inspect_directory(place)
        if left:
            raise UserError(
                f"this finding cannot be repaired from the files alone: {left[0].text}; {left[0].cure}"
            )
        block = model_block(place, out.name)
        record = {
            "verb": "doctor",
            "ropewalk": __version__,
            "settings": to_record(settings),
            "fingerprint": fingerprint({"settings": to_record(settings), "model": block}),
            "model": block,
            "from": {"name": found.name},
        }
        write_record(place, record)
    console.say(f"wrote {out}: corrected, same weights ({len(findings)} findings before, none now)")
    return str(out)
