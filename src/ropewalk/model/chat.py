"""A model that is talked to: exact prompts, streamed answers, what was read once is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, TextStreamer

from ..errors import UserError
from .cache import keeps_all
from .load import load_model, load_tokenizer, model_block
from .quiet import quiet

Turn = tuple[str, str]
"""(question, answer)"""

STOPS = ("\nQuestion:",)
"""Where the answer of a model without a chat template ends: it begins to ask itself."""


@dataclass(frozen=True)
class Answer:
    """text: without special tokens.   prompt, new: tokens read and written.   window: L', tokens.

    kept: how many tokens of the prompt had been read before.
    """

    text: str
    prompt: int
    new: int
    kept: int
    window: int

    @property
    def inside(self) -> bool:
        """Did prompt and answer stay within the window?"""
        return self.prompt + self.new <= self.window


@dataclass
class Speaker:
    """One model in a conversation. Its cache holds the tokens read so far: only what differs is read anew."""

    path: Path
    name: str
    device: str = "cpu"
    dtype: str = "float32"
    _read: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokenizer = load_tokenizer(self.path)
        block = model_block(self.path, self.name)
        self.window = int(block["window"])
        self.model = load_model(self.path, dtype=self.dtype, device=self.device)
        config = self.model.config.get_text_config()
        self._new_cache: Callable[[], Any] = lambda: DynamicCache(config=config)
        self._cache = self._new_cache()
        # not where layers forget, nor where the frequencies depend on how much was read
        self._can_go_back = keeps_all(self._cache) and block["method"] not in ("dynamic", "longrope")

    def prompt(self, document: str, turns: list[Turn], question: str) -> list[int]:
        """Token ids of the whole conversation up to the next answer.

        With a chat template: the document opens the first user message. Without one: the text as it stands,
        or ``document, Question:, Answer:`` where there is a document; BOS where the tokenizer puts one.
        """
        if self.tokenizer.chat_template:
            messages = []
            for i, (asked, answered) in enumerate([*turns, (question, "")]):
                front = f"{document}\n\n" if document and i == 0 else ""
                messages.append({"role": "user", "content": front + asked})
                messages.append({"role": "assistant", "content": answered})
            with quiet():
                found = self.tokenizer.apply_chat_template(
                    messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=False
                )
            return list(found)
        with quiet():
            text = plain_prompt(document, turns, question)
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            bos = self.tokenizer.bos_token_id
            starts = bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos]
        return [bos, *ids] if starts else list(ids)

    def answer(
        self,
        ids: list[int],
        new_tokens: int,
        write: Callable[[str], None],
        *,
        temperature: float = 0.0,
        stops: tuple[str, ...] = (),
    ) -> Answer:
        """Continue ``ids`` by up to ``new_tokens`` or to one of ``stops``; greedy at temperature 0.

        Each piece of text is given to ``write`` as it comes; a stop itself is not part of the answer.
        """
        kept = self._go_back(ids)
        streamer = _Writer(self.tokenizer, write, stops)
        settings = GenerationConfig(
            max_new_tokens=new_tokens,
            do_sample=temperature > 0,
            **({"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}),
            repetition_penalty=1.0,
            eos_token_id=self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
            **({"stop_strings": list(stops)} if stops else {}),
        )
        rows = torch.tensor([ids], device=self.device)
        try:
            with quiet(), torch.inference_mode():
                made = self.model.generate(
                    rows,
                    attention_mask=torch.ones_like(rows),
                    generation_config=settings,
                    past_key_values=self._cache,
                    tokenizer=self.tokenizer,
                    streamer=streamer,
                )
        except torch.OutOfMemoryError:
            raise UserError(
                f"{len(ids):,} tokens do not fit the memory of {self.device} in {self.dtype}; "
                "ask of a shorter text, or with --device cpu"
            ) from None
        whole = made[0].tolist()
        self._read = whole[: self._cache.get_seq_length()]
        new = whole[len(ids) :]
        text = self.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(_cut(text, stops), len(ids), len(new), kept, self.window)

    def _go_back(self, ids: list[int]) -> int:
        """Let the cache hold nothing but a beginning of ``ids``, short of its last token; its length."""
        same = 0
        while same < min(len(self._read), len(ids) - 1) and self._read[same] == ids[same]:
            same += 1
        if same < len(self._read) and same > 0 and self._can_go_back:
            self._cache.crop(same - len(self._read))
        elif same < len(self._read):
            self._cache, same = self._new_cache(), 0
        self._read = self._read[:same]
        return same


def plain_prompt(document: str, turns: list[Turn], question: str) -> str:
    """The text for a model without a chat template."""
    if not document:
        return "".join(f"{asked}{answered}\n" for asked, answered in turns) + question
    before = "".join(f"\n\nQuestion: {asked}\nAnswer: {answered.strip()}" for asked, answered in turns)
    return f"{document}{before}\n\nQuestion: {question}\nAnswer:"


def _cut(text: str, stops: tuple[str, ...]) -> str:
    """A text up to the first of the stops in it."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text


class _Writer(TextStreamer):
    """transformers' streamer, writing where it is told: the new tokens alone, up to the first stop."""

    def __init__(self, tokenizer: Any, write: Callable[[str], None], stops: tuple[str, ...]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write, self._stops = write, stops
        self._text, self._written = "", 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Write what cannot be the beginning of a stop any more, and everything at the end."""
        self._text += text
        sure = _cut(self._text, self._stops)
        if not stream_end and sure == self._text:
            sure = sure[: len(sure) - max(map(len, self._stops), default=0)]
        self._write(sure[self._written :] + ("\n" if stream_end else ""))
        self._written = max(self._written, len(sure))
