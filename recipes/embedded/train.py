"""Train the embedded model: a small Llama with a window of 512 tokens, on Python sources, on one GPU.

    python recipes/embedded/train.py --out FIRST --seconds 90 --layers 4 --heads 3
    python recipes/embedded/train.py --out DIR --start FIRST --eager --seconds 25 --rate 1e-3 \
        --synthetic 0.3 --characters 30000000

The second stage goes on from the first with more retrieval, at distances up to the whole window.

Writes DIR (a Hugging Face checkpoint with its tokenizer) and DIR/training.json (the log).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from pathlib import Path

import torch
from corpus import collect, places
from synthetic import PREAMBLE, passkey, recall
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WINDOW = 512
VOCABULARY = 4096
BATCH = 256  # windows a step: 131,072 tokens
BOS = "<|endoftext|>"


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 4,096 tokens with single digits; puts one BOS in front of a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(1)
    prose = [passkey(rng, 3) for _ in range(300)]
    bpe.train_from_iterator(texts[:4000] + prose, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=BOS, pad_token=BOS, model_max_length=WINDOW
    )


def retrieval_windows(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], stream: torch.Tensor, n: int
) -> torch.Tensor:
    """(n, 512) windows: as many retrieval documents as fit at the end, real code in front of them."""
    rng = random.Random(2)
    names = sorted({m for t in texts[:400] for m in re.findall(r"\b[a-z_]{4,20}\b", t)})
    bodies = [t for t in texts[:3000] if len(t) > 4000]
    documents = []
    for i in range(2 * n):
        if i % 2:
            body = rng.choice(bodies)
            at = rng.randrange(len(body) - 2000)
            documents.append(recall(rng, names, body[at : at + rng.randint(100, 1900)]))
        else:
            documents.append(passkey(rng, rng.choice((6, 19, 19))))
    encoded = [e.ids for e in tokenizer.backend_tokenizer.encode_batch(documents)]
    # A longer document loses its beginning, as any window of a long text does; the key may go with it
    # only when it is the recall of several names. So the key comes to lie at every distance up to 512.
    preamble = len(tokenizer.encode(PREAMBLE)) + 1
    encoded = [ids[-WINDOW:] for ids in encoded if len(ids) <= WINDOW + preamble]
    rng.shuffle(encoded)
    windows = torch.empty(n, WINDOW, dtype=torch.long)
    for made, row in enumerate(windows):
        if not encoded:
            return windows[:made]
        tail: list[int] = []
        while encoded and len(tail) + len(encoded[-1]) <= WINDOW:
            tail = encoded.pop() + tail
        at = rng.randrange(len(stream) - WINDOW)
        row[: WINDOW - len(tail)] = stream[at : at + WINDOW - len(tail)]
        row[WINDOW - len(tail) :] = torch.tensor(tail)
    return windows


def build(args: argparse.Namespace) -> LlamaForCausalLM:
    torch.manual_seed(0)
    if args.start:
        return LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=args.hidden,
            intermediate_size=args.ffn,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            num_key_value_heads=args.heads,
            max_position_embeddings=WINDOW,
            rope_parameters={"rope_type": "default", "rope_theta": args.theta},
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def train(model: LlamaForCausalLM, stream: torch.Tensor, synthetic: torch.Tensor, args: argparse.Namespace):
    """AdamW, 100 warm-up steps, cosine to a tenth by wall-clock share; the log, one entry each 50 steps."""
    model.cuda().train()
    compiled = model if args.eager else torch.compile(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    stream, synthetic = stream.cuda(), synthetic.cuda()
    offsets = torch.arange(WINDOW, device="cuda")
    plain = round(BATCH * (1 - args.synthetic))
    log, step, start = [], 0, None
    while True:
        share = 0.0 if start is None else (time.monotonic() - start) / args.seconds
        if share >= 1:
            break
        rate = args.rate * min(1, (step + 1) / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = torch.randint(len(stream) - WINDOW, (plain, 1), device="cuda")
        rows = torch.randint(len(synthetic), (BATCH - plain,), device="cuda")
        ids = torch.cat([stream[at + offsets].long(), synthetic[rows].long()])
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = compiled(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step == 3:
            torch.cuda.synchronize()
            start = time.monotonic()  # compilation is not training
        if step % 50 == 0:
            log.append({"step": step, "loss": round(loss.item(), 4), "rate": rate})
            assert math.isfinite(log[-1]["loss"]), "the loss is not finite"
        step += 1
    return log, step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="keep tokenizer and tokens here for the next run")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--characters", type=int, default=150_000_000)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint and its tokenizer")
    parser.add_argument("--eager", action="store_true", help="do not compile: pays below a minute")
    parser.add_argument("--synthetic", type=float, default=0.15, help="share of windows with retrieval")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--windows", type=int, default=60_000, help="windows with retrieval")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--ffn", type=int, default=512)
    parser.add_argument("--theta", type=float, default=10000.0)
    args = parser.parse_args()
    began = time.monotonic()
    if args.cache and (args.cache / "data.pt").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.cache)
        data = torch.load(args.cache / "data.pt", weights_only=True)
        stream, synthetic, dropped = data["stream"], data["synthetic"], data["dropped"]
    else:
        texts, dropped = collect(places(), args.characters)
        tokenizer = (
            PreTrainedTokenizerFast.from_pretrained(args.start) if args.start else make_tokenizer(texts)
        )
        encoded = tokenizer.backend_tokenizer.encode_batch(texts)
        stream = torch.cat([torch.tensor(e.ids, dtype=torch.int16) for e in encoded])
        synthetic = retrieval_windows(tokenizer, texts, stream, args.windows).to(torch.int16)
        dropped = {**dropped, "files": len(texts), "characters": sum(map(len, texts))}
        if args.cache:
            tokenizer.save_pretrained(args.cache)
            torch.save({"stream": stream, "synthetic": synthetic, "dropped": dropped}, args.cache / "data.pt")
    print(f"corpus: {dropped}, {len(stream):,} tokens, {time.monotonic() - began:.0f} s", flush=True)
    model = build(args)
    log, steps = train(model, stream, synthetic, args)
    model.to(torch.bfloat16).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    record = {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
        "corpus": dropped,
        "tokens_in_corpus": len(stream),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": steps,
        "tokens_seen": steps * BATCH * WINDOW,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "log": log,
    }
    (args.out / "training.json").write_text(json.dumps(record, indent=1))
    print(
        f"{args.out.name}: {record['parameters']:,} parameters, {steps} steps, loss {log[-1]['loss']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
