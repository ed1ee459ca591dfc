"""Faults planted one at a time in a copy of the sources: is each caught by a test?

    python tests/faults/mutations.py                       all of them; prints what caught each
    python tests/faults/mutations.py --only windows        those of one subject
    python tests/faults/mutations.py --record FILE         writes the table as JSON

A fault is an exact text of one file and what is put in its place; the tests named with it must fail on the
copy, and pass without it (which the default suite shows).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "ropewalk"


@dataclass(frozen=True)
class Fault:
    """subject; what is wrong, in words; file under src/ropewalk; old -> new text; the tests that catch it."""

    subject: str
    what: str
    file: str
    old: str
    new: str
    tests: str


FAULTS = [
    # windows
    Fault(
        "windows",
        "windows overlap by one token: it is scored twice",
        "metrics/windows.py",
        "Window(stop - room, stop, stop - ends[i - 1])",
        "Window(stop - room, stop, stop - ends[i - 1] + 1)",
        "tests/metrics/test_windows.py",
    ),
    Fault(
        "windows",
        "the end of every document is left out",
        "metrics/windows.py",
        "    room: document tokens in a window.  unseen: 1 when the first token cannot be scored, else 0.\n"
        '    """\n'
        "    ends = range(room, n, stride)\n",
        '    """\n    ends = range(room, n - stride, stride)\n',
        "tests/metrics/test_windows.py",
    ),
    Fault(
        "windows",
        "a BOS takes no room in the window",
        "metrics/windows.py",
        "    room = context - bos\n",
        "    room = context\n",
        "tests/metrics/test_windows.py",
    ),
    Fault(
        "windows",
        "the first token is scored though nothing stands before it",
        "metrics/windows.py",
        "stride, 0 if bos else 1)",
        "stride, 0)",
        "tests/metrics/test_windows.py",
    ),
    Fault(
        "windows",
        "a window begins one token too late",
        "metrics/windows.py",
        "        return Window(stop - room, stop,",
        "        return Window(stop - room + 1, stop,",
        "tests/metrics/test_windows.py",
    ),
    # scoring
    Fault(
        "scoring",
        "perplexity is the mean of means, not weighted by tokens",
        "evals/perplexity.py",
        "    loss = total(sums) / sum(counts)\n",
        "    loss = total(a / b for a, b in zip(sums, counts)) / len(sums)\n",
        "tests/evals/test_perplexity_eval.py",
    ),
    Fault(
        "scoring",
        "scores are those of the token itself, not of the one behind",
        "model/lm.py",
        "return self._hidden(ids)[:, -scored - 1 : -1].flatten(0, 1)",
        "return self._hidden(ids)[:, -scored:].flatten(0, 1)",
        "tests/evals/test_lm.py",
    ),
    Fault(
        "scoring",
        "a loss that is not finite is averaged away",
        "evals/texts.py",
        "    if not bool(torch.isfinite(losses).all()):",
        "    if False:",
        "tests/evals/test_perplexity_eval.py",
    ),
    Fault(
        "scoring",
        "a sample of windows is not scaled up to the document",
        "metrics/perplexity.py",
        "return math.fsum(self.loss) / sum(self.tokens) * self.all_tokens if",
        "return math.fsum(self.loss) if",
        "tests/metrics/test_perplexity_metrics.py tests/evals/test_perplexity_eval.py",
    ),
    Fault(
        "scoring",
        "k_max is the farthest distance that works, over a hole",
        "metrics/retrieval.py",
        "            break\n",
        "            continue\n",
        "tests/metrics/test_perplexity_metrics.py",
    ),
    Fault(
        "scoring",
        "the bar of k_max is above, not at, 20 %",
        "metrics/retrieval.py",
        "        if rate < at_least:",
        "        if rate <= at_least:",
        "tests/metrics/test_perplexity_metrics.py",
    ),
    Fault(
        "scoring",
        "any digits of an answer count as its key",
        "metrics/retrieval.py",
        'return "".join(re.findall(r"[0-9]", answer)[:count])',
        'return "".join(re.findall(r"[0-9]", answer)[-count:])',
        "tests/metrics/test_perplexity_metrics.py tests/evals/test_passkey_eval.py",
    ),
    Fault(
        "scoring",
        "the passkey stands one token nearer than is said",
        "data/passkey.py",
        "return Prompt(ids, key, len(ids) + self.room - len(self._bos) - first, start",
        "return Prompt(ids, key, len(ids) + self.room - len(self._bos) - first + 1, start",
        "tests/data/test_passkey_prompts.py",
    ),
    Fault(
        "scoring",
        "the passkey's filler is cut in mid-sentence",
        "data/filler.py",
        "            if not ways:\n                continue\n",
        "            break\n",
        "tests/data/test_passkey_prompts.py",
    ),
    Fault(
        "scoring",
        "a key is chosen that is likelier than one of the others",
        "evals/passkey_choice.py",
        "scores[:, 1:].amax(1)",
        "scores[:, 1:].amin(1)",
        "tests/evals/test_passkey_choice.py",
    ),
    Fault(
        "scoring",
        "the passkey prompt has no BOS",
        "data/passkey.py",
        "ids = self._bos + head +",
        "ids = head +",
        "tests/data/test_passkey_prompts.py",
    ),
    # intervals
    Fault(
        "intervals",
        "intervals of rates are those of the normal distribution",
        "metrics/intervals.py",
        "    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / n + spread / (4 * n))\n",
        "    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / n)\n",
        "tests/metrics/test_intervals.py",
    ),
    Fault(
        "intervals",
        "few documents are as sure as many",
        "metrics/intervals.py",
        "    half = student_quantile(0.5 + confidence / 2, units - 1) * error\n",
        "    half = NormalDist().inv_cdf(0.5 + confidence / 2) * error * 0.8\n",
        "tests/metrics/test_intervals.py",
    ),
    Fault(
        "intervals",
        "a paired difference has the wrong sign",
        "metrics/intervals.py",
        "differences = [b - a for a, b in",
        "differences = [a - b for a, b in",
        "tests/metrics/test_intervals.py",
    ),
    # scaling
    Fault(
        "scaling",
        "frequencies are multiplied by the factor",
        "rope/scaling.py",
        "inverse_frequencies(d, base, dtype) / scale_factor(original, extended, factor), 1.0)",
        "inverse_frequencies(d, base, dtype) * scale_factor(original, extended, factor), 1.0)",
        "tests/rope/test_scaling.py tests/rope/test_interpolate.py",
    ),
    Fault(
        "scaling",
        "positions are squeezed by L' too little",
        "rope/interpolate.py",
        "exact = positions.double() * original / extended",
        "exact = positions.double() * original / (extended - 1)",
        "tests/rope/test_interpolate.py",
    ),
    Fault(
        "scaling",
        "NTK's exponent forgets that two dimensions are one pair",
        "rope/scaling.py",
        "    return base * factor ** (d / (d - 2))\n",
        "    return base * factor\n",
        "tests/rope/test_scaling.py",
    ),
    Fault(
        "scaling",
        "a second extension forgets the first factor",
        "model/scaling.py",
        '"rope_type": kind, "factor": float(own.get("factor") or 1.0) * k}',
        '"rope_type": kind, "factor": float(k)}',
        "tests/model/test_read_state.py tests/verbs/test_extend.py",
    ),
    Fault(
        "scaling",
        "the base is lost when a config is written",
        "model/scaling.py",
        '        return {**kept, "rope_type": "linear", "factor": float(k)}\n',
        '        return {"rope_type": "linear", "factor": float(k)}\n',
        "tests/verbs/test_extend.py tests/model/test_families.py",
    ),
    Fault(
        "scaling",
        "the stated window stays the old one",
        "model/scaling.py",
        "    part[window_key(result)] = window\n",
        "",
        "tests/verbs/test_extend.py tests/model/test_families.py",
    ),
    Fault(
        "scaling",
        "yarn's window is read from the stated, not the original one",
        "model/config.py",
        "        return kind, factor, round(original * factor), original\n",
        "        return kind, factor, round(stated * factor), original\n",
        "tests/model/test_read_state.py tests/verbs/test_extend.py tests/verbs/test_doctor.py",
    ),
    # packing
    Fault(
        "packing",
        "labels are the tokens themselves",
        "train/feeding.py",
        "    labels[:, :-1] = ids[:, 1:]\n",
        "    labels[:, :-1] = ids[:, :-1]\n",
        "tests/train/test_feeding.py",
    ),
    Fault(
        "packing",
        "documents kept apart predict each other",
        "train/feeding.py",
        "            labels[row, ends] = IGNORED\n",
        "            pass\n",
        "tests/train/test_feeding.py",
    ),
    Fault(
        "packing",
        "a token is lost between two windows",
        "data/windows.py",
        "            self._rest = self._rest[len(piece) :]\n",
        "            self._rest = self._rest[len(piece) + 1 :]\n",
        "tests/data/test_token_windows.py",
    ),
    Fault(
        "packing",
        "documents are joined without their BOS",
        "data/windows.py",
        "    if marks.bos is not None:\n",
        "    if False:\n",
        "tests/data/test_token_windows.py",
    ),
    Fault(
        "packing",
        "jumping positions leave the window",
        "train/feeding.py",
        "    total = int(rng.integers(0, window - length + 1))\n",
        "    total = int(rng.integers(0, window + 1))\n",
        "tests/train/test_feeding.py",
    ),
    Fault(
        "packing",
        "padding of short rows is trained on",
        "train/feeding.py",
        "    labels[:, :-1] = torch.where(real[:, 1:], rows[:, 1:], IGNORED)\n",
        "    labels[:, :-1] = rows[:, 1:]\n",
        "tests/train/test_feeding.py",
    ),
    # training
    Fault(
        "training",
        "a loss that is not finite reaches the weights",
        "train/trainer.py",
        "        if math.isfinite(loss) and math.isfinite(norm):\n            return\n",
        "        return\n",
        "tests/train/test_finetune.py -k finite",
    ),
    Fault(
        "training",
        "the warm-up begins at the peak",
        "train/rates.py",
        "        return WARMUP_FROM + (1 - WARMUP_FROM) * step / warmup\n",
        "        return 1.0\n",
        "tests/train/test_rates.py",
    ),
    # resume
    Fault(
        "training",
        "what frozen embeddings give is kept as if they were trained",
        "train/recompute.py",
        "        base.disable_input_require_grads()",
        "        pass",
        "tests/train/test_memory.py",
    ),
    Fault(
        "resume",
        "a resumed training replays its data",
        "train/feeding.py",
        '        self._mixture.restore(state["mixture"])\n',
        "",
        "tests/train/test_finetune.py -k killed",
    ),
    Fault(
        "resume",
        "a resumed stream skips a token",
        "data/windows.py",
        "keep = max(0, len(part) - (consumed - self._consumed))",
        "keep = max(0, len(part) - 1 - (consumed - self._consumed))",
        "tests/data/test_token_windows.py",
    ),
    Fault(
        "resume",
        "the mixture forgets whose turn it is",
        "data/windows.py",
        '        self._turn = int(state["turn"])\n',
        "",
        "tests/data/test_token_windows.py",
    ),
    Fault(
        "resume",
        "a damaged checkpoint is resumed from",
        "train/keeping.py",
        "            if sha256(file) != digest:\n",
        "            if False:\n",
        "tests/train/test_keeping.py",
    ),
    Fault(
        "resume",
        "finished cells of other inputs are taken",
        "results/cells.py",
        'if not good or good[0] != {"inputs": mark}:',
        "if not good:",
        "tests/results/test_record_and_cells.py",
    ),
    # export
    Fault(
        "export",
        "q and k keep their halves in the GGUF file",
        "model/gguf_out.py",
        ".swapaxes(1, 2).reshape(shape)\n",
        ".reshape(shape)\n",
        "tests/model/test_gguf_out.py",
    ),
    Fault(
        "export",
        "the GGUF file does not say its scaling",
        "model/gguf_out.py",
        '        writer.add_rope_scaling_factor(keys["factor"])\n',
        "",
        "tests/model/test_gguf_out.py",
    ),
    # report
    Fault(
        "report",
        "figures of different conditions stand unmarked",
        "results/collection.py",
        "        dataclasses.replace(one, mark=MARK)\n",
        "        one\n",
        "tests/results/test_collection.py",
    ),
    Fault(
        "report",
        "other data are no difference",
        "results/collection.py",
        'return fingerprint([protocol, [b.get("sha256", b.get("name")) for b in data], read])',
        "return fingerprint([protocol, read])",
        "tests/results/test_collection.py",
    ),
    Fault(
        "report",
        "two checkpoints of one name are one model",
        "results/collection.py",
        'return (names or {}).get(name, f"{name}@{digits}") if not digits else f"{name}@{digits}"',
        'return f"{name}@"',
        "tests/results/test_collection.py",
    ),
    Fault(
        "report",
        "names are written into the page as they are",
        "results/page.py",
        "        autoescape=True,\n",
        "        autoescape=False,\n",
        "tests/results/test_page.py",
    ),
    Fault(
        "report",
        "a figure that is not finite is read",
        "results/record.py",
        "        if isinstance(item, float) and not math.isfinite(item):\n",
        "        if False:\n",
        "tests/results/test_record_and_cells.py",
    ),
    # what is let in
    Fault(
        "let in",
        "the numbers of a scaling are taken as they stand",
        "model/sane.py",
        "if value is not None and not _is_number(value, low, high):",
        "if False:",
        "tests/model/test_sane.py",
    ),
    Fault(
        "let in",
        "control characters of a file reach the terminal",
        "console.py",
        "    if text.isprintable():\n        return text\n",
        "    return text\n",
        "tests/test_cli.py -k terminal",
    ),
    Fault(
        "let in",
        "a shard may lie outside the checkpoint",
        "model/weights.py",
        "            if file.parent != directory:\n",
        "            if False:\n",
        "tests/faults/test_nothing_let_in.py -k weight_index",
    ),
    Fault(
        "let in",
        "weights are read from pickles",
        "model/weights.py",
        '            if file.suffix != ".safetensors":\n',
        "            if False:\n",
        "tests/faults/test_nothing_let_in.py -k weight_index",
    ),
]
"""What was planted; the text must stand exactly once in its file."""


def plant(fault: Fault, place: Path) -> Path:
    """A copy of the sources with the fault in it, to stand in front of the installed ones."""
    shutil.copytree(SOURCE, place / "ropewalk", ignore=shutil.ignore_patterns("__pycache__"))
    file = place / "ropewalk" / fault.file
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, (
        f"{fault.file}: {fault.old!r} stands there {text.count(fault.old)} times"
    )
    file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    return place


def caught_by(fault: Fault, seconds: int = 600) -> str | None:
    """The name of the first test that fails on the fault; None when all pass: it survives."""
    with tempfile.TemporaryDirectory(prefix="planted-") as place:
        environment = {**os.environ, "PYTHONPATH": str(plant(fault, Path(place))), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-rfE", "--tb=short"]
        words += ["-p", "no:randomly", *fault.tests.split()]
        done = subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
        )
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+?::)?(\w+)", done.stdout, re.M)
    assert done.returncode == 1 and found, f"{fault.what}: {done.stdout[-3000:]}{done.stderr[-1000:]}"
    assert place in done.stdout or "FAILED" in done.stdout, done.stdout[-3000:]
    return (found[1] or "") + found[2]


def table(only: str | None = None) -> list[dict[str, str | None]]:
    """One row a fault: subject, what, file, the test that caught it (None: it survived)."""
    rows = []
    for fault in FAULTS:
        if only is None or only in (fault.subject, fault.what):
            caught = caught_by(fault)
            rows.append({key: asdict(fault)[key] for key in ("subject", "what", "file")} | {"caught": caught})
            print(f"{fault.subject}: {fault.what}: {caught or 'SURVIVED'}", flush=True)
    return rows


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", help="a subject, or what is wrong")
    asked.add_argument("--record", type=Path, help="file for the table")
    known = asked.parse_args()
    rows = table(known.only)
    if known.record is not None:
        from ropewalk.files import to_json, write_atomic

        write_atomic(known.record, to_json({"rows": rows}))
    return int(any(row["caught"] is None for row in rows))


if __name__ == "__main__":
    sys.exit(main())
