"""How little fine-tuning brings the embedded model to four times its window: many recipes, one GPU.

    python recipes/embedded/budget.py --base DIR --out results.json [--workers 12]

Each recipe fine-tunes the interpolated base on the standard library's training modules, without synthetic
retrieval, at a cost that two CPU cores can pay in about three minutes, and is judged on held-out modules
(perplexity of the last 256 tokens of windows of 512, 1,024 and 2,048) and passkeys at eight lengths.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import random
import time
from itertools import product
from pathlib import Path

import torch
from synthetic import FILLER, PREAMBLE, QUESTION
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from ropewalk.data.stdlib import heldout_modules, training_modules

TARGET = 2048
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(base: Path, method: str) -> LlamaForCausalLM:
    config = AutoConfig.from_pretrained(base)
    theta = config.rope_parameters["rope_theta"]
    if method == "linear":
        config.rope_parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": theta}
    return LlamaForCausalLM.from_pretrained(base, config=config, dtype=torch.float32).to(DEVICE)


def passkey_ids(tokenizer, length: int, rng: random.Random) -> tuple[list[int], int]:
    """Prompt and answer of about ``length`` tokens, key right after the preamble; number of digits."""
    key = str(rng.randint(10000, 99999))
    head = f"{PREAMBLE}\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
    tail = f"\n{QUESTION} {key}"
    unit = len(tokenizer.encode(" " + FILLER, add_special_tokens=False))
    fixed = len(tokenizer.encode(head + tail))
    n = max(0, (length - fixed) // unit)
    return tokenizer.encode(head + " ".join([FILLER] * n) + tail), 5


@torch.no_grad()
def judge(model, tokenizer) -> dict:
    model.eval()
    result: dict = {"perplexity": {}, "passkey": {}}
    documents = [tokenizer.encode(p.read_text("utf-8", "replace")) for p in heldout_modules()]
    for context in (512, 1024, 2048):
        total, n = 0.0, 0
        for ids in documents:
            for end in range(TARGET, min(len(ids), 6 * TARGET), TARGET):
                window = torch.tensor(ids[end - context : end], device=DEVICE)[None]
                with torch.autocast(DEVICE, dtype=torch.bfloat16):
                    logits = model(window, use_cache=False).logits[0, -257:-1]
                total += torch.nn.functional.cross_entropy(
                    logits.float(), window[0, -256:], reduction="sum"
                ).item()
                n += 256
        result["perplexity"][context] = round(float(torch.tensor(total / n).exp()), 3)
    for length in (256, 512, 768, 1024, 1280, 1536, 1664, 1792, 1856, 1920, 1984, 2040):
        rng = random.Random(length)
        right = 0
        for _ in range(10):
            ids, digits = passkey_ids(tokenizer, length, rng)
            window = torch.tensor(ids, device=DEVICE)[None]
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                best = model(window, use_cache=False).logits[0, -digits - 1 : -1].argmax(-1)
            right += int((best == window[0, -digits:]).all())
        result["passkey"][length] = right
    return result


def windows(
    stream: torch.Tensor, recipe: dict, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch of ids and positions, both (B, chunk)."""
    chunk, batch = recipe["chunk"], recipe["batch"]
    at = torch.randint(len(stream) - chunk, (batch, 1), generator=generator)
    ids = stream[at + torch.arange(chunk)].long()
    positions = torch.arange(chunk).repeat(batch, 1)
    if recipe["skip"]:  # two segments, the second shifted by a random jump
        cut = torch.randint(1, chunk, (batch, 1), generator=generator)
        jump = torch.randint(0, TARGET - chunk + 1, (batch, 1), generator=generator)
        positions = positions + jump * (positions >= cut)
    return ids, positions


def fine_tune(base: Path, recipe: dict) -> dict:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = load(base, recipe["method"])
    began = time.monotonic()
    if recipe["steps"]:
        texts = [p.read_text("utf-8", "replace") for p in training_modules()]
        random.Random(0).shuffle(texts)
        stream = torch.cat([torch.tensor(e.ids) for e in tokenizer.backend_tokenizer.encode_batch(texts)])
        if recipe.get("only"):
            for name, p in model.named_parameters():
                p.requires_grad_(any(word in name for word in recipe["only"]))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=recipe["rate"], betas=(0.9, 0.95), weight_decay=0, fused=True
        )
        generator = torch.Generator().manual_seed(0)
        model.train()
        for step in range(recipe["steps"]):
            warm = min(1.0, 0.1 + 0.9 * step / 20)
            decay = 1 - step / recipe["steps"] if recipe["schedule"] == "linear" else 1.0
            for group in optimizer.param_groups:
                group["lr"] = recipe["rate"] * warm * decay
            ids, positions = (t.to(DEVICE) for t in windows(stream, recipe, generator))
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                out = model(
                    ids,
                    position_ids=positions,
                    attention_mask=torch.ones_like(ids),
                    labels=ids,
                    use_cache=False,
                )
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    spent = time.monotonic() - began
    return {**recipe, "base": base.name, "seconds": round(spent, 1), **judge(model, tokenizer)}


def recipes() -> list[dict]:
    plain = {
        "method": "none",
        "steps": 0,
        "chunk": 512,
        "batch": 1,
        "skip": False,
        "rate": 0.0,
        "schedule": "linear",
    }
    found = [plain, {**plain, "method": "linear"}]
    one = {"method": "linear", "chunk": 512, "batch": 2, "skip": True, "schedule": "linear"}
    for rate, steps in product((3e-4, 5e-4, 8e-4), (300, 500)):
        found.append({**one, "rate": rate, "steps": steps})
    for steps in (300, 500):
        found.append({**one, "rate": 2e-3, "steps": steps, "only": ["q_proj", "k_proj"]})
        found.append({**one, "rate": 1e-3, "steps": steps, "only": ["self_attn", "norm"]})
    found.append({**one, "rate": 8e-4, "batch": 4, "steps": 250})
    found.append({**one, "rate": 5e-4, "chunk": 1024, "batch": 1, "steps": 500})
    found.append({**one, "rate": 5e-4, "chunk": 2048, "batch": 1, "skip": False, "steps": 250})
    found.append({**one, "rate": 1e-3, "chunk": 2048, "batch": 1, "skip": False, "steps": 250})
    found.append(
        {**one, "rate": 5e-4, "method": "none", "chunk": 2048, "batch": 1, "skip": False, "steps": 250}
    )
    return found


def work(job: tuple[Path, dict]) -> dict:
    row = fine_tune(*job)
    print(line(row), flush=True)
    return row


def line(row: dict) -> str:
    name = f"{row['method']} {row['chunk']}x{row['batch']}{' skip' if row['skip'] else ''} {row['steps']}st"
    name += f" {row['rate']:.0e} {row['schedule'][:3]} {','.join(row.get('only', []))}"
    ppl = " / ".join(f"{v:.2f}" for v in row["perplexity"].values())
    right = " ".join(map(str, row["passkey"].values()))
    return f"{row['base']:10} {name:48} {ppl:24} {right}  {row['seconds']} s"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=12)
    args = parser.parse_args()
    jobs = [(base, recipe) for base in args.base for recipe in recipes()]
    with mp.get_context("spawn").Pool(args.workers) as pool:
        rows = []
        for row in pool.imap_unordered(work, jobs):
            rows.append(row)
            args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
