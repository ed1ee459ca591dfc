"""Realistic results of models that do not exist, for tests of the report. Deterministic."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

SHA = {"stdlib": "9f" * 32, "books": "3c" * 32, "filler": "a1" * 32}
HOSTILE = "<script>alert('x')</script> & \"q\" </script><img src=x onerror=alert(1)> $\\%_#{}|`*[a](b)\u202e"


def model(name: str, kind: str, *, window: int = 2048, old: int = 512, steps: int = 400) -> dict[str, Any]:
    """A model block; kind: original, direct, pi (untrained) or tuned."""
    trained = {"steps": steps, "tokens": steps * 8192} if kind in ("direct", "tuned") else None
    scaled = kind in ("pi", "tuned")
    return {
        "name": name,
        "hash": f"{abs(hash_of(name + kind)):016x}"[:16],
        "window": old if kind == "original" else window,
        "original_window": old,
        "factor": window / old if scaled else 1.0,
        "method": "linear" if scaled else "none",
        "parameters": 3_440_000,
        "trained": trained,
    }


def hash_of(text: str) -> int:
    """A fixed number for a text."""
    return int.from_bytes(text.encode()[:8].ljust(8, b"\1"), "big") ^ (len(text) << 7)


def result(
    evaluation: str, block: dict[str, Any], rows: list[dict[str, Any]], **parts: Any
) -> dict[str, Any]:
    """A complete results file's content."""
    return {
        "schema": 1,
        "evaluation": evaluation,
        "model": block,
        "protocol": parts.get("protocol", {"name": evaluation}),
        "data": parts.get("data", []),
        "rows": rows,
        "summary": parts.get("summary", {}),
        "provenance": {
            "ropewalk": "0.1.0", "commit": "0123456789ab", "python": "3.11.7", "torch": "2.13.0",
            "transformers": "5.17.0", "device": "cpu", "dtype": "float32", "seed": 0,
        },
    }  # fmt: skip


PERPLEXITY = {
    "original": {512: 8.31, 1024: 135.0, 2048: 245.0},
    "direct": {512: 10.3, 1024: 9.9, 2048: 10.0},
    "pi": {512: 40.1, 1024: 40.3, 2048: 41.0},
    "tuned": {512: 9.41, 1024: 8.68, 2048: 8.49},
}


def perplexity(
    block: dict[str, Any], values: dict[int, float], group: str = "stdlib", **more: Any
) -> dict[str, Any]:
    """Sliding-window perplexity."""
    rows = [
        {
            "data": group, "context": context, "stride": 256, "perplexity": value, "low": value * 0.96,
            "high": value * 1.05, "loss": math.log(value), "n": 61_440, "windows": 240, "documents": 8,
            "sampled": False,
        }
        for context, value in values.items()
    ]  # fmt: skip
    protocol = {"name": "sliding", "stride": 256, "contexts": list(values), **more}
    data = [{"name": group, "sha256": SHA.get(group, "77" * 32), "documents": 8}]
    return result("perplexity", block, rows, protocol=protocol, data=data)


def passkey(block: dict[str, Any], reach: int, target: int = 2048, seed: int = 0) -> dict[str, Any]:
    """Passkey accuracy by distance, found up to about ``reach`` tokens."""
    dice = random.Random(seed)
    rows, k_max, unbroken = [], 0, True
    for i in range(1, 33):
        distance = i * target // 32
        chance = 0.95 if distance <= reach else 0.02
        right = sum(dice.random() < chance for _ in range(10))
        low, high = wilson(right, 10)
        unbroken = unbroken and right >= 2
        k_max = distance if unbroken else k_max
        rows.append(
            {
                "distance": distance, "length": min(target - 8, distance + 40), "depth": 0.05, "right": right,
                "n": 10, "rate": right / 10, "low": low, "high": high,
            }
        )  # fmt: skip
    summary = {"k_max": k_max, "grid": target // 32, "target": target}
    return result(
        "passkey", block, rows, protocol={"name": "passkey", "target": target, "repeats": 10}, summary=summary
    )


def passkey_choice(block: dict[str, Any], reach: int, target: int = 2048) -> dict[str, Any]:
    """Keys chosen among ten by distance, all up to ``reach`` tokens and as by chance beyond."""
    rows = []
    for distance in range(target // 32, target + 1, target // 32):
        right = 10 if distance <= reach else 1
        low, high = wilson(right, 10)
        rows.append({"distance": distance, "length": min(target - 8, distance + 40), "right": right, "n": 10,
                     "rate": right / 10, "low": low, "high": high, "margin": right - 5.0})  # fmt: skip
    summary = {"k_choice": reach, "target": target, "chance": 0.1}
    return result("passkey-choice", block, rows, protocol={"name": "forced choice"}, summary=summary)


def passkey_map(block: dict[str, Any], reach: int, target: int = 2048) -> dict[str, Any]:
    """Passkey accuracy on a grid of lengths and depths."""
    rows = []
    for length in range(target // 8, target + 1, target // 8):
        for depth in (0.0, 0.25, 0.5, 0.75, 1.0):
            distance = (1 - depth) * length
            right = 10 if distance <= reach * 0.8 else 7 if distance <= reach else 0
            low, high = wilson(right, 10)
            rows.append({"distance": distance, "length": length, "depth": depth, "right": right, "n": 10,
                         "rate": right / 10, "low": low, "high": high})  # fmt: skip
    return result("passkey", block, rows, protocol={"name": "passkey map"}, summary={})


def position_loss(
    block: dict[str, Any], window: int, end: int = 2048, group: str = "stdlib"
) -> dict[str, Any]:
    """Loss by position that rises past ``window``."""
    rows = []
    for low in range(0, end, 128):
        loss = 2.4 - 0.25 * math.log10(1 + low) + (0.9 if low >= window else 0) * math.log2(1 + low / window)
        rows.append({"data": group, "from": low, "to": low + 128, "loss": loss, "low": loss - 0.08,
                     "high": loss + 0.09, "n": 1024})  # fmt: skip
    data = [{"name": group, "sha256": SHA[group], "documents": 8}]
    return result("position-loss", block, rows, data=data)


def training(block: dict[str, Any], steps: int = 400) -> dict[str, Any]:
    """A loss curve."""
    dice = random.Random(steps)
    rows = [
        {
            "step": i,
            "loss": 2.2 + 1.6 * math.exp(-i / 40) + dice.gauss(0, 0.04),
            "tokens": i * 8192,
            "learning_rate": 5e-4,
        }
        for i in range(1, steps + 1)
    ]
    return result("training", block, rows)


def benchmark(block: dict[str, Any], shift: float) -> dict[str, Any]:
    """Accuracies on the paper's tasks."""
    tasks = {"BoolQ": 0.61, "PIQA": 0.68, "RACE-M": 0.45, "WinoGrande": 0.53}
    rows = [
        {"task": task, "accuracy": value + shift * (i + 1) / 3, "standard_error": 0.012, "n": 1500}
        for i, (task, value) in enumerate(tasks.items())
    ]
    return result("benchmark", block, rows, protocol={"name": "zero-shot"})


def ruler(block: dict[str, Any], reach: int) -> dict[str, Any]:
    """Two RULER tasks by length."""
    rows = [
        {
            "task": task,
            "length": n,
            "score": (0.9 - i * 0.2) * (1.0 if n <= reach else 0.1),
            "low": 0.0,
            "high": 1.0,
            "n": 50,
        }
        for i, task in enumerate(("niah_single", "variable_tracking"))
        for n in (512, 1024, 2048)
    ]
    return result("ruler", block, rows)


def summarization(block: dict[str, Any], level: float) -> dict[str, Any]:
    """ROUGE scores."""
    rows = [
        {
            "metric": name,
            "window": block["window"],
            "score": level * part,
            "low": level * part - 1.1,
            "high": level * part + 1.2,
            "n": 200,
        }
        for name, part in (("ROUGE-1", 1.0), ("ROUGE-2", 0.45), ("ROUGE-L", 0.55))
    ]
    return result("summarization", block, rows)


def attention(block: dict[str, Any]) -> dict[str, Any]:
    """Attention scores of one head with raw and with interpolated positions."""
    rows = []
    for distance in range(0, 2049, 8):
        raw = math.cos(distance / 90) * (1 if distance < 512 else 1 + (distance - 512) / 160)
        rows.append({"series": "extrapolated", "distance": distance, "score": raw})
        rows.append({"series": "interpolated", "distance": distance, "score": math.cos(distance / 360)})
    return result("attention", block, rows)


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % score interval."""
    z, rate = 1.959964, right / n
    centre, spread = rate + z * z / (2 * n), z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))


def everything(names: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """One result of each kind for original, direct and tuned models: a run that went well."""
    names = {"original": "base-512", "direct": "direct-2048", "tuned": "pi-2048", **(names or {})}
    blocks = {kind: model(name, kind) for kind, name in names.items()}
    reach = {"original": 512, "direct": 704, "tuned": 2048}
    found = []
    for kind, block in blocks.items():
        found.append(perplexity(block, PERPLEXITY[kind]))
        found.append(passkey(block, reach[kind], seed=len(kind)))
        found.append(position_loss(block, reach[kind]))
        found.append(passkey_choice(block, reach[kind]))
        found.append(passkey_map(block, reach[kind]))
        found.append(ruler(block, reach[kind]))
        found.append(summarization(block, {"original": 18.0, "direct": 21.0, "tuned": 24.0}[kind]))
        found.append(benchmark(block, {"original": 0.0, "direct": -0.02, "tuned": -0.012}[kind]))
    found += [training(blocks["direct"]), training(blocks["tuned"]), attention(blocks["tuned"])]
    return found


def save(results: list[dict[str, Any]], folder: Path) -> Path:
    """Write results files as the verbs name them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, one in enumerate(results):
        (folder / f"{i:05}.{one['evaluation']}.json").write_text(json.dumps(one, indent=2, sort_keys=True))
    return folder


if __name__ == "__main__":
    import sys

    save(everything(), Path(sys.argv[1]))
