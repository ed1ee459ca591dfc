"""`ropewalk ask`: questions about a long document, or a long conversation, in the terminal."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import console
from ..errors import UserError
from ..settings import option, verb

if TYPE_CHECKING:
    from ..model.chat import Speaker, Turn

EXAMPLE = """ropewalk ask longer-model --file long.txt
  ropewalk ask longer-model --file long.txt --question "Who is the thief?" --beside owner/original"""


@dataclass(frozen=True)
class Ask:
    """Ask a model about a long document, or talk with it; answers stream, and it says when text is too long.

    In the terminal it is a conversation: what was said before is part of the prompt, and an empty line ends
    it. With --question, or questions piped in one a line, each is asked by itself.
    """

    model: str = option(help="checkpoint directory, Hub id, GGUF file or 'embedded'", positional=True)
    file: Path | None = option(None, help="text that the questions are about")
    question: tuple[str, ...] = option((), help="a question, asked by itself; may be given again")
    beside: str | None = option(None, help="a second model that answers too, such as the original")
    new_tokens: int = option(256, help="longest answer, tokens")
    temperature: float = option(0.0, help="0 takes the likeliest token; above, tokens are drawn")
    seed: int = option(0, help="of the draws")
    device: str = option("auto", help="auto, cpu or cuda")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="of the weights; auto = float32 on a CPU, bfloat16 on a GPU"
    )


@verb(Ask)
def ask(settings: Ask) -> dict[str, Any]:
    """Answer; returns every question with each model's answer and its number of tokens."""
    _check(settings)
    document = _read(settings.file)
    asked: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        names = [settings.model, *([settings.beside] if settings.beside else [])]
        speakers = [_speaker(name, settings, stack) for name in names]
        import torch

        torch.manual_seed(settings.seed)
        _introduce(speakers, document)
        turns: list[list[Turn]] = [[] for _ in speakers]
        talk = not settings.question and sys.stdin.isatty()
        for question in settings.question or (_typed() if talk else _lines()):
            if not talk:
                console.say(f"\n> {question}")
            asked.append(_ask(speakers, document, turns, question, settings))
            if talk:
                for own, found in zip(turns, asked[-1]["answers"]):
                    own.append((question, found["answer"]))
        if not asked and not talk:
            raise UserError("no question: give --question, or one a line on standard input")
    return {"model": settings.model, "file": str(settings.file or ""), "asked": asked}


def _check(settings: Ask) -> None:
    if settings.new_tokens < 1:
        raise UserError(f"new_tokens is {settings.new_tokens}; at least 1")
    if not 0 <= settings.temperature <= 10:
        raise UserError(f"temperature is {settings.temperature}; 0 for the likeliest token, up to 10")
    if any(not question.strip() for question in settings.question):
        raise UserError("question is empty; ask something")


def _read(file: Path | None) -> str:
    """The document's text. Raises UserError."""
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"file {file} cannot be read: {reason}") from None
    if not text.strip():
        raise UserError(f"file {file} is empty")
    return text.rstrip("\n")


def _speaker(name: str, settings: Ask, stack: contextlib.ExitStack) -> Speaker:
    """The model in memory; a GGUF file by way of a checkpoint that is removed at the end."""
    import torch

    from ..model.checkpoint import require_model
    from ..model.load import load_state
    from ..model.source import resolve
    from ..model.weights import check_weights

    source = resolve(name)
    path = source.path
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device is {device!r}; give auto, cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device}: torch sees no GPU here; use --device cpu")
    if source.kind == "gguf":
        from ..model.convert import to_checkpoint

        console.say(f"reading {path.name}")
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ropewalk-")))
        path = to_checkpoint(source, place / source.name)
    require_model(path)
    load_state(path)
    check_weights(path)
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    from ..model.chat import Speaker

    return Speaker(path, source.name, device, dtype)


def _introduce(speakers: list[Speaker], document: str) -> None:
    """Who answers, how long the document is, and whether it fits."""
    for speaker in speakers:
        way = "its chat template" if speaker.tokenizer.chat_template else "plain text (no chat template)"
        console.say(f"{speaker.name}: window of {speaker.window:,} tokens, {way}")
        if document:
            size = len(speaker.prompt(document, [], ""))
            console.say(f"  the document takes {size:,} tokens of them")
            if size > speaker.window:
                console.say(
                    f"  ! that is {size - speaker.window:,} more than the window: it was not made for them"
                )


def _ask(
    speakers: list[Speaker],
    document: str,
    turns: list[list[Turn]],
    question: str,
    settings: Ask,
) -> dict[str, Any]:
    """One question to every model, streamed, with a line that says where in the window it stands."""
    from ..model.chat import STOPS

    answers = []
    for speaker, own in zip(speakers, turns):
        ids = speaker.prompt(document, own, question)
        if len(speakers) > 1:
            console.say(f"[{speaker.name}]")
        if len(ids) > speaker.window:
            console.say(f"! the text leaves the window: {len(ids):,} of {speaker.window:,} tokens")
        found = speaker.answer(
            ids,
            settings.new_tokens,
            _write,
            temperature=settings.temperature,
            stops=STOPS if document and not speaker.tokenizer.chat_template else (),
        )
        used = found.prompt + found.new
        note = "" if found.inside or found.prompt > found.window else "! the answer left the window: "
        console.say(f"({note}{used:,} of {found.window:,} tokens)")
        answers.append(
            {
                "model": speaker.name,
                "answer": found.text,
                "prompt_tokens": found.prompt,
                "kept_tokens": found.kept,
                "answer_tokens": found.new,
                "window": found.window,
                "inside": found.inside,
            }
        )
    return {"question": question, "answers": answers}


def _write(text: str) -> None:
    stream = console.stream()
    stream.write(console.harmless(text))
    stream.flush()


def _lines() -> Iterator[str]:
    """Questions on standard input, one a line."""
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _typed() -> Iterator[str]:
    """Questions typed in the terminal, until an empty line or the end of input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (editing and history of the lines typed)
    console.say("type a question; an empty line ends")
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            return
        if not line:
            return
        yield line
