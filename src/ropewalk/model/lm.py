"""A language model as the evaluations see it: token log-probabilities, answers, text to tokens."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UserError
from . import attention
from .cache import back, branched, keeps_all, make_cache
from .choosing import behind, losses, read_whole
from .compiling import compiling
from .decoding import GREEDY, Decoding, answer, beginnings, keep, shared_start
from .device import is_out_of_memory
from .load import bos_of, load_config, load_model, load_tokenizer, model_block
from .plain import PlainDecoder, plain_decoder
from .quiet import all_cores, quiet
from .ragged import merged
from .swap import Rotations

CPU_LOGITS, GPU_LOGITS = 1 << 22, 1 << 26
"""Logits computed at once: 16 MB stay in a CPU's cache, 256 MB fill a GPU."""

GPU_BATCH = 1 << 17
"""Tokens that a GPU is given at once, at most."""

PAYS_FROM = 1e15
"""Tokens × parameters from which compiling pays: a quarter of a minute of an H100. Compiling takes six
seconds and nearly halves the rest."""

CPU_TRUNK, GPU_TRUNK = 0.2, 0.7
"""Share of a prompt from which a beginning that was read before pays: what is read after it gets a dense
mask, and a GPU's attention with one is reckoned (not measured) three times slower than the causal one."""


class LanguageModel(Protocol):
    """What an evaluation may ask; ten lines fake it in a test."""

    name: str
    window: int  # L, or L' of an extended checkpoint, tokens
    bos: int | None  # the BOS id when the tokenizer puts one in front, else None
    vocab: int  # rows of the output head
    device: str
    dtype: str

    @property
    def stops(self) -> tuple[int, ...]:
        """Token ids that end an answer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""

    def log_probs(self, windows: Tensor, scored: int) -> Tensor:
        """log p of the last ``scored`` tokens of each window, given all before: (B, T) -> (B, scored)."""

    def generate(self, prompts: Tensor, new_tokens: int, decoding: Decoding = GREEDY) -> Tensor:
        """What follows each prompt, token by token: (B, T) -> (B, new_tokens)."""

    def describe(self) -> dict[str, Any]:
        """The "model" block of a results file."""


class TransformersLM:
    """`LanguageModel` of a checkpoint directory.

    Any number of windows or prompts may be given at once: they are computed in batches as large as the
    memory takes. The first batch follows an estimate; when memory runs out it is halved, and the size
    that worked is kept.

    device: "cpu", "cuda", "cuda:1".  dtype: of the weights; losses are float32 always.
    compiled: torch.compile for scoring, of plain layers the parts (`plain.PlainDecoder`), of others the
    layers; None leaves it to `prepare`.
    kernel: one of `attention.available`, "torch" for torch's choice, None to measure.
    """

    def __init__(
        self,
        path: Path | str,
        device: str = "cpu",
        dtype: str = "float32",
        *,
        name: str | None = None,
        compiled: bool | None = None,
        kernel: str | None = None,
    ) -> None:
        self.tokenizer = load_tokenizer(path)
        self.block = model_block(path, name)
        self.name, self.window = self.block["name"], self.block["window"]
        self.vocab = int(load_config(path).get_text_config().vocab_size)
        self.bos = bos_of(self.tokenizer)
        self.path, self.device, self.dtype = path, device, dtype
        self.kernels: dict[int, str] = {}
        self._fixed_kernel, self.compiled = kernel, bool(compiled)
        self._wanted = compiled
        self.alone = True  # does no other thread choose kernels? torch's choice is one for the process
        self._limits: dict[tuple[str, int], int] = {}

    @cached_property
    def model(self) -> Any:
        """The weights in memory: loaded when first needed, after the texts were read and checked."""
        return load_model(self.path, dtype=self.dtype, device=self.device)

    @cached_property
    def _rotations(self) -> Rotations:
        return Rotations(self.model if self.length_dependent else None)

    @property
    def length_dependent(self) -> bool:
        """Do the rotations depend on how long a call is?"""
        return self.block["method"] in ("dynamic", "longrope")

    @property
    def on_gpu(self) -> bool:
        """Does the model lie on a CUDA device?"""
        return self.device.startswith("cuda")

    def ready(self) -> None:
        """Load the weights now, and look at the output head."""
        assert self._plain_head in (True, False)

    def prepare(self, tokens: int) -> None:
        """Be told how many tokens of windows of few lengths are to be scored; 0: of many lengths.

        On a GPU layers are compiled when that will pay, decided by the amount of work alone, so that a
        resumed run computes as the first one did. For windows of many lengths they never are.
        """
        if self._wanted is None:
            self.compiled = self.on_gpu and tokens * (self.block["parameters"] or 0) >= PAYS_FROM
        else:
            self.compiled = self._wanted and tokens > 0

    @cached_property
    def _compiled_layers(self) -> bool:
        """Compile each decoder layer (they share one graph), not the model around them.

        Traced as a whole, transformers' models build a dense causal mask, and attention loses its kernels.
        """
        self.ready()
        for layer in getattr(self.model.base_model, "layers", [self.model.base_model]):
            layer.compile(dynamic=False)
        return True

    @cached_property
    def _decoder(self) -> PlainDecoder | None:
        """Our own way through the layers, where they are plain."""
        self.ready()
        found = plain_decoder(self.model, compiled=True)
        if found is not None:
            found.trim = self.alone
        return found

    @contextlib.contextmanager
    def _eagerly(self) -> Iterator[None]:
        """Inside, compiled layers run as they were: prompts of many lengths would compile many times."""
        there = "_compiled_layers" in self.__dict__
        with torch.compiler.set_stance("force_eager") if there else contextlib.nullcontext():
            yield

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added."""
        with quiet():
            return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, by all cores where the tokenizer can, and without the places of tokens."""
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if not hasattr(backend, "encode_batch_fast"):
            return [self.encode(text) for text in texts]
        backend.no_truncation()
        backend.no_padding()
        with all_cores():
            return [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def describe(self) -> dict[str, Any]:
        """The "model" block of a results file."""
        return dict(self.block)

    def log_probs(self, windows: Tensor, scored: int) -> Tensor:
        """See `LanguageModel.log_probs`; float32 on the CPU.

        Only the rows that are scored go through the output head, and those in chunks: with a vocabulary
        of 49,152 the full logits of one window of 32,768 tokens are 6.4 GB in float32.
        """
        assert 1 <= scored < windows.shape[1], f"{scored} scored tokens in windows of {windows.shape[1]}"
        if self.compiled and self._decoder is None:
            assert self._compiled_layers
        ids = windows.to(self.device)  # all at once, and back at once: between parts the GPU need not wait
        with compiling() if self.compiled else self._eagerly():
            return self._in_parts(ids, "score", lambda part: self._score(part, scored)).cpu()

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """The ids by which the checkpoint says that generation ends, else the tokenizer's end of text."""
        found = getattr(self.model, "generation_config", None)
        ids = getattr(found, "eos_token_id", None)
        ids = self.tokenizer.eos_token_id if ids is None else ids
        return () if ids is None else tuple(ids) if isinstance(ids, list | tuple) else (int(ids),)

    def generate(self, prompts: Tensor, new_tokens: int, decoding: Decoding = GREEDY) -> Tensor:
        """See `LanguageModel.generate`: one pass over the prompts, then token by token from the cache."""
        assert new_tokens >= 1
        uniforms = decoding.uniforms(len(prompts), new_tokens)

        def compute(part: Tensor, u: Tensor) -> Tensor:
            return self._answers(part, new_tokens, decoding, u)

        with self._eagerly():
            return self._in_parts(prompts, "generate", compute, uniforms)

    def generate_each(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, decoding: Decoding = GREEDY
    ) -> Tensor:
        """What follows each of prompts of different lengths, side by side: (prompts, new_tokens).

        Each is read alone; see ragged.py. Where the cache does not allow it, they are answered in turn.
        """
        seeds = decoding.seeds or (0,) * len(prompts)
        if not self._cache_can_go_back or min(map(len, prompts)) < 2:
            single = [dataclasses.replace(decoding, seeds=(seed,)) for seed in seeds]
            rows = [self.generate(torch.tensor([ids]), new_tokens, how) for ids, how in zip(prompts, single)]
            return torch.cat(rows)
        lengths = torch.tensor([len(ids) for ids in prompts])
        padded = torch.zeros((len(prompts), int(lengths.max())), dtype=torch.int64)
        for row, ids in zip(padded, prompts):
            row[: len(ids)] = torch.tensor(ids)
        uniforms = decoding.uniforms(len(prompts), new_tokens)

        def compute(part: Tensor, own: Tensor, u: Tensor) -> Tensor:
            return self._side_by_side(part, own.tolist(), new_tokens, decoding, u)

        with self._eagerly():
            return self._in_parts(padded, "generate", compute, lengths, uniforms)

    def generate_groups(self, groups: Sequence[Tensor], new_tokens: int) -> Iterator[tuple[int, Tensor]]:
        """(i, greedy answers) of every group i of prompts, as soon as they are there, in some order.

        groups: each (B, T), with lengths of their own.  The answers (B, new_tokens) are the same tokens as
        `generate` gives; but what all rows of a group share at their start, with one another and with other
        groups, is read once. Ten prompts of one haystack with their keys at five depths cost about half.
        """
        trunk = max((group[0, : shared_start(list(group))] for group in groups), key=len)
        cuts = [min(shared_start([trunk, *group]), group.shape[1] - 1) for group in groups]
        least = GPU_TRUNK if self.on_gpu else CPU_TRUNK
        ahead = [i for i, group in enumerate(groups) if cuts[i] >= max(1, least * group.shape[1])]
        alone = set(range(len(groups))) - set(ahead if self._cache_can_go_back else [])
        for i in sorted(alone):
            yield i, self.generate(groups[i], new_tokens)
        if len(alone) == len(groups):
            return
        cache, at = make_cache(self._text_config, max(cuts)), 0
        for i in sorted(ahead, key=cuts.__getitem__):
            with self._eagerly():
                self._read(trunk[None, at : cuts[i]], cache)
                at = max(at, cuts[i])
                yield i, self._in_parts(groups[i], "generate", self._after(cache, at, new_tokens))

    def generate_along(
        self, rows: Tensor, cuts: Sequence[int], tails: Sequence[Sequence[int]], new_tokens: int
    ) -> Tensor:
        """Greedy answers after the first c tokens of each row and a tail, for every c of ``cuts``.

        rows: (B, T).  cuts: not decreasing, 1 … T.  tails: one for each cut, at least a token.
        Returns (B, cuts, new_tokens), the same tokens as `generate` gives for each of them; but what they
        share at their start is computed once.
        """
        assert list(cuts) == sorted(cuts) and cuts[0] >= 1 and cuts[-1] <= rows.shape[1]
        assert len(tails) == len(cuts) and all(tails)
        if not self._cache_can_go_back:
            pieces = beginnings(rows, cuts, tails)
            return torch.stack([self.generate(piece, new_tokens) for piece in pieces], dim=1)

        def answers(end: Tensor, cache: Any) -> Tensor:
            none = GREEDY.uniforms(len(end), new_tokens)
            return answer(self.model, end, cache, new_tokens, GREEDY, none, contextlib.nullcontext())

        with self._eagerly():
            compute = functools.partial(self._along, cuts=cuts, tails=tails, room=new_tokens, ask=answers)
            return self._in_parts(rows, "generate", compute)

    def log_probs_along(
        self, rows: Tensor, cuts: Sequence[int], tails: Sequence[Sequence[int]], options: Tensor
    ) -> Tensor:
        """log p of continuations behind the beginnings and tails of `generate_along`: (B, cuts, n).

        options: (B, n, m), see `choosing.padded`.
        """
        if not self._cache_can_go_back:
            pieces = beginnings(rows, cuts, tails)
            return torch.stack([read_whole(self.log_probs, piece, options) for piece in pieces], dim=1)

        def compute(part: Tensor, own: Tensor) -> Tensor:
            ask = functools.partial(behind, self.model, options=own)
            return self._along(part, cuts, tails, own.shape[2], ask)

        with self._eagerly():
            return self._in_parts(rows, "generate", compute, options)

    @torch.inference_mode()
    def _score(self, ids: Tensor, scored: int) -> Tensor:
        targets = ids[:, -scored:].reshape(-1)
        with attention.kernel(self.kernel_for(ids)):
            self._rotations.renew()
            if not self._plain_head:
                logits = self._logits(ids, scored + 1)[:, :-1]
                found = losses(logits.reshape(len(targets), -1), targets)
            else:
                hidden = self._rows(ids, scored)
                head = self.model.get_output_embeddings()
                rows = max(1, (GPU_LOGITS if self.on_gpu else CPU_LOGITS) // self.vocab)
                if self.compiled:  # a power of two divides what is scored at once; only whole chunks compile
                    rows = 1 << (rows.bit_length() - 1)
                pieces = []
                for some, these in zip(hidden.split(rows), targets.split(rows)):
                    full = self.compiled and len(these) == rows
                    pieces.append((self._compiled_losses if full else losses)(head(some), these))
                found = torch.cat(pieces)
        return -found.reshape(len(ids), scored)

    def _rows(self, ids: Tensor, scored: int) -> Tensor:
        """The last hidden states where the last ``scored`` tokens are foretold: (B·scored, hidden)."""
        if self.compiled and self._decoder is not None:
            return self._decoder(ids, scored)
        return self._hidden(ids)[:, -scored - 1 : -1].flatten(0, 1)

    @cached_property
    def _compiled_losses(self) -> Callable[[Tensor, Tensor], Tensor]:
        """`losses` in one kernel, which makes no float32 copy of the logits."""
        return torch.compile(losses, dynamic=False)

    @torch.inference_mode()
    def _answers(self, prompts: Tensor, new_tokens: int, decoding: Decoding, uniforms: Tensor) -> Tensor:
        ids = prompts.to(self.device)
        kernel = self.kernel_for(ids) if self.alone else "torch"
        cache = make_cache(self._text_config, ids.shape[1] + new_tokens)
        self._rotations.renew()
        reading = attention.kernel(kernel)
        return answer(self.model, ids, cache, new_tokens, decoding, uniforms, reading).cpu()

    @torch.inference_mode()
    def _side_by_side(
        self, padded: Tensor, lengths: list[int], new_tokens: int, decoding: Decoding, uniforms: Tensor
    ) -> Tensor:
        ids = padded.to(self.device)
        caches = []
        for row, length in zip(ids, lengths):
            caches.append(make_cache(self._text_config, length))
            self._read(row[None, : length - 1], caches[-1])
        last = torch.stack([row[length - 1] for row, length in zip(ids, lengths)])[:, None]
        cache, ragged = merged(caches, max(lengths) + new_tokens)
        reading = contextlib.nullcontext()
        return answer(self.model, last, cache, new_tokens, decoding, uniforms, reading, ragged).cpu()

    @torch.inference_mode()
    def _read(self, ids: Tensor, cache: Any) -> None:
        """Let the model read on (B, T), T >= 0, without an answer."""
        if ids.shape[1]:
            kernel = self.kernel_for(ids) if self.alone and cache.get_seq_length() == 0 else "torch"
            with attention.kernel(kernel):
                self.model.base_model(input_ids=ids.to(self.device), past_key_values=cache, use_cache=True)

    def _after(self, trunk: Any, cut: int, new_tokens: int) -> Callable[[Tensor], Tensor]:
        """Greedy answers to prompts whose first ``cut`` tokens are in the cache ``trunk``."""

        @torch.inference_mode()
        def compute(part: Tensor) -> Tensor:
            cache = branched(trunk, len(part), part.shape[1] + new_tokens)
            rest, none = part[:, cut:].to(self.device), GREEDY.uniforms(len(part), new_tokens)
            return answer(self.model, rest, cache, new_tokens, GREEDY, none, contextlib.nullcontext()).cpu()

        return compute

    @torch.inference_mode()
    def _along(
        self,
        rows: Tensor,
        cuts: Sequence[int],
        tails: Sequence[Sequence[int]],
        room: int,
        ask: Callable[[Tensor, Any], Tensor],
    ) -> Tensor:
        """What ``ask`` makes of (tail, cache) behind each cut; it adds at most tail and room tokens."""
        cache = make_cache(self._text_config, cuts[-1] + max(map(len, tails)) + room)
        found, at = [], 0
        for cut, tail in zip(cuts, tails):
            self._read(rows[:, at:cut], cache)
            at = max(at, cut)
            found.append(ask(torch.tensor(tail, device=self.device).expand(len(rows), -1), cache).cpu())
            back(cache, at)
        return torch.stack(found, dim=1)

    @cached_property
    def _cache_can_go_back(self) -> bool:
        """Can the last tokens be taken out of the cache, as if they had never been read?

        Not where layers forget (sliding windows, states), nor where rotations depend on the length read.
        """
        return keeps_all(make_cache(self._text_config, 1)) and not self.length_dependent

    @property
    def _text_config(self) -> Any:
        return self.model.config.get_text_config()

    def _hidden(self, ids: Tensor) -> Tensor:
        """The last hidden states (B, T, hidden). No mask is given, so attention takes its causal kernel."""
        return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def _logits(self, ids: Tensor, rows: int) -> Tensor:
        return self.model(input_ids=ids, use_cache=False, **keep(self.model, rows)).logits[:, -rows:]

    @cached_property
    def _plain_head(self) -> bool:
        """Are the logits the output head of the last hidden states, and nothing more?

        Some families scale or cap them (Granite, Gemma 2, Cohere); those go through the whole model.
        """
        ids = torch.arange(8, device=self.device)[None] % self.vocab
        with torch.inference_mode():
            plain = self.model.get_output_embeddings()(self._hidden(ids)).float()
            return torch.allclose(plain, self._logits(ids, 8).float(), rtol=1e-2, atol=1e-2)

    @torch.inference_mode()
    def kernel_for(self, ids: Tensor) -> str:
        """The attention kernel for windows of about this length: measured once on the GPU, then kept."""
        length = ids.shape[1]
        if self._fixed_kernel is not None:
            return self._fixed_kernel
        if not self.on_gpu or length < 1024:
            return "torch"
        size = 1 << (length.bit_length() - 1)
        if size not in self.kernels:
            some = ids[: max(1, (1 << 16) // length)].to(self.device)  # enough that the GPU is the limit
            with self._eagerly():
                self.kernels[size], _ = attention.fastest(lambda: self._hidden(some))
        return self.kernels[size]

    def _in_parts(self, rows: Tensor, kind: str, compute: Callable[..., Tensor], *beside: Tensor) -> Tensor:
        """Compute ``rows`` (B, T) in parts as even as can be, each as large as memory allows.

        beside: tensors (B, …) of which ``compute`` gets the same rows.
        """
        length = rows.shape[1]
        limit = self._limits.setdefault((kind, length), self._estimate(kind, length))
        done: list[Tensor] = []
        at = 0
        while at < len(rows):
            parts = -(-(len(rows) - at) // limit)
            size = -(-(len(rows) - at) // parts)
            part, others = rows[at : at + size], [one[at : at + size] for one in beside]
            if self.compiled and kind == "score":  # one shape, one compilation
                part = torch.cat([part, part[:1].expand(limit - size, -1)])
            try:
                done.append(compute(part, *others)[:size])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                limit = len(part) // 2
            else:
                at += size
                continue
            if self.on_gpu:  # outside the handler: the error holds the tensors of the failed pass
                torch.cuda.empty_cache()
            if limit < 1:
                raise UserError(
                    f"one window of {length:,} tokens does not fit the memory of {self.device} in "
                    f"{self.dtype}; choose a smaller context, bfloat16 or a larger device"
                )
            self._limits[kind, length] = limit
        return torch.cat(done)

    def _estimate(self, kind: str, length: int) -> int:
        """Windows in a first batch: enough tokens to fill the device, and what should fit its memory."""
        if not self.on_gpu:
            return max(1, (16384 if kind == "generate" else 1024) // length)  # measured: caches, not memory
        config = self._text_config
        layers, hidden = config.num_hidden_layers, config.hidden_size
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
        size = 4 if self.dtype == "float32" else 2
        token = size * (12 * hidden + 4 * (getattr(config, "intermediate_size", None) or 4 * hidden))
        if kind == "generate":
            token += size * layers * 2 * heads * head_dim
        free, _ = torch.cuda.mem_get_info(self.device)
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return max(1, min(GPU_BATCH, int(0.8 * free / token)) // length)
