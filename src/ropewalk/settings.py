"""One frozen dataclass a verb: its flags, its help, its YAML, its Python arguments and its saved record.

    @dataclass(frozen=True)
    class Extend:
        '''Lengthen a checkpoint's window.'''
        model: str = option(help="directory, Hub id or GGUF file", positional=True)
        to: int = option(help="target window L', tokens (32k = 32768)", parse=tokens)

    @verb(Extend)
    def extend(settings: Extend) -> dict: ...

`extend("m", "out", to=8192)`, `ropewalk extend m out --to 8k` and a recipe's `extend: {to: 8192}` all
build the same `Extend`. Supported field types: str, int, float, bool, Path, Literal, `X | None`,
`tuple[X, ...]` and dict (YAML and Python only).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import inspect
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import UserError

S = TypeVar("S")


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    positional: bool = False,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """A dataclass field with its help line. ``parse`` reads the flag's text (and a YAML string)."""
    metadata = {"help": help, "positional": positional, "parse": parse}
    return dataclasses.field(default=default, metadata=metadata)


def tokens(text: str) -> int:
    """A number of tokens as people write it: ``8192``, ``8k`` (= 8,192), ``1m`` (= 1,048,576)."""
    scale = {"k": 1 << 10, "m": 1 << 20}.get(text[-1:].lower(), 1)
    return int(text[:-1] if scale > 1 else text) * scale


def verb(settings: type[S]) -> Callable[[Callable[[S], dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Give a verb's function the dataclass's fields as its own arguments (positional ones first)."""

    def decorate(function: Callable[[S], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        order = _positional_first(settings)
        parameters = [
            inspect.Parameter(
                f.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD
                if f.metadata.get("positional")
                else inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default,
                annotation=f.type,
            )
            for f in order
        ]
        signature = inspect.Signature(parameters, return_annotation=dict[str, Any])

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> dict[str, Any]:
            if len(args) == 1 and not kwargs and isinstance(args[0], settings):
                return function(args[0])
            bound = signature.bind(*args, **kwargs)
            return function(from_mapping(settings, bound.arguments))

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.settings = settings  # type: ignore[attr-defined]
        return call

    return decorate


def from_mapping(cls: type[S], values: dict[str, Any], where: str = "") -> S:
    """Build settings from a mapping (a recipe's section, Python arguments), every value checked.

    where: said in front of a complaint, such as ``recipe.yaml: finetune``.
    Raises UserError for an unknown name, a missing one, or a value of the wrong kind.
    """
    prefix = f"{where}: " if where else ""
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(str(name)[:60], fields, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(fields))}"
            raise UserError(f"{prefix}no setting {_shown(str(name))}{hint}")
    built = {}
    for name, f in fields.items():
        if name in values:
            built[name] = _convert(values[name], hints[name], f.metadata.get("parse"), prefix + name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"{prefix}setting {name!r} is missing: {f.metadata.get('help', '')}")
    return cls(**built)


def to_record(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values, to be saved beside what they made."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see `{self.prog} -h`)")


def parser(cls: type, prog: str, example: str) -> argparse.ArgumentParser:
    """The command line of a settings class; ``example`` ends the help page."""
    built = _Parser(
        prog=prog,
        description=inspect.getdoc(cls),
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    hints = get_type_hints(cls)
    for f in _positional_first(cls):
        kind, many, _ = _kind(hints[f.name])
        if kind is dict:
            continue
        default = None if f.default is dataclasses.MISSING else f.default
        required = f.default is dataclasses.MISSING
        text = f.metadata["help"].replace("%", "%%")
        if default not in (None, (), False) and "default" not in text:
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            text += f" (default {shown.replace('%', '%%')})"
        options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = _reader(kind, f.metadata.get("parse"), f.name)
            options["metavar"] = _metavar(kind, f.name)
            if many:
                options["nargs"] = "+" if required else "*"
                if not f.metadata["positional"]:
                    options["action"] = "extend"  # a flag given twice adds, it does not replace
        if f.metadata["positional"]:
            if not required and not many:
                options["nargs"] = "?"
            built.add_argument(f.name, **options)
        else:
            built.add_argument("--" + f.name.replace("_", "-"), required=required, **options)
    return built


def parse_arguments(cls: type[S], arguments: Sequence[str], prog: str, example: str) -> S:
    """Read a verb's command line. Raises UserError; ``-h`` prints the help page and exits with 0."""
    found = vars(parser(cls, prog, example).parse_args(list(arguments)))
    return from_mapping(cls, {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


def to_arguments(settings: Any) -> list[str]:
    """The command line that `parse_arguments` reads as these settings, without what is at its default.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Walk:
    ...     to: str = option(help="where", positional=True)
    ...     fast: bool = option(False, help="run")
    ...     over: tuple[str, ...] = option((), help="bridges")
    >>> to_arguments(Walk("town", True, ("-a", "b")))
    ['town', '--fast', '--over=-a', '--over=b']
    """
    places, flags = [], []
    for f in dataclasses.fields(settings):
        value, name = getattr(settings, f.name), "--" + f.name.replace("_", "-")
        if f.metadata.get("positional"):
            places.append(str(value))
        elif value is None or value == f.default:
            continue
        elif isinstance(value, bool):
            flags.append(name if value else f"--no-{name[2:]}")
        else:
            flags += [f"{name}={one}" for one in (value if isinstance(value, tuple) else (value,))]
    return [*places, *flags]


def _positional_first(cls: type) -> list[dataclasses.Field[Any]]:
    fields = list(dataclasses.fields(cls))
    return sorted(fields, key=lambda f: not f.metadata.get("positional", False))


def _kind(hint: Any) -> tuple[Any, bool, bool]:
    """(element type, is it a list, may it be None) of a field's type."""
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        optional = type(None) in get_args(hint)
        (hint,) = [a for a in get_args(hint) if a is not type(None)]
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True, optional
    if get_origin(hint) is dict:
        return dict, False, optional
    return hint, False, optional


def _reader(kind: Any, parse: Callable[[str], Any] | None, name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return _scalar(text, kind, parse, name)
        except UserError as error:  # argparse would say "invalid read value"
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _metavar(kind: Any, name: str) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return name.upper()


def _convert(value: Any, hint: Any, parse: Callable[[str], Any] | None, name: str) -> Any:
    kind, many, optional = _kind(hint)
    if value is None:
        if optional:
            return None
        raise UserError(f"{name} has no value")
    if not many:
        return _scalar(value, kind, parse, name)
    if isinstance(value, str | int | float):
        value = (value,)
    if not isinstance(value, list | tuple):
        raise UserError(f"{name} is {_shown(value)}, not a list")
    return tuple(_scalar(v, kind, parse, name) for v in value)


def _scalar(value: Any, kind: Any, parse: Callable[[str], Any] | None, name: str) -> Any:
    if get_origin(kind) is Literal:
        if isinstance(value, str | int) and value in get_args(kind):
            return value
        raise UserError(f"{name} is {_shown(value)}; choose one of {', '.join(map(str, get_args(kind)))}")
    try:
        if isinstance(value, str) and parse is not None:
            return parse(value)
        if kind is bool and not isinstance(value, bool):
            raise ValueError
        if kind is int and (isinstance(value, bool) or (isinstance(value, float) and int(value) != value)):
            raise ValueError
        if kind is float and isinstance(value, bool):
            raise ValueError
        if kind in (str, Path) and not isinstance(value, str | Path):
            raise ValueError
        if "\0" in str(value) and kind in (str, Path):
            raise UserError(f"{name} is {_shown(value)}: it holds a NUL character, which no name can have")
        if kind is dict and not isinstance(value, dict):
            raise ValueError
        return value if kind is Any else kind(value)
    except UserError:
        raise
    except (TypeError, ValueError, OverflowError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping"}
        raise UserError(f"{name} is {_shown(value)}, not {wanted.get(kind, 'a text')}") from None


def _shown(value: Any) -> str:
    """A value as part of a line: its first characters."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length():,} bits"
    try:
        text = repr(value[:100]) if isinstance(value, str) else repr(value)
    except ValueError:  # a whole number within has more digits than Python writes
        text = f"a {type(value).__name__} of very large numbers"
    return text if len(text) <= 100 else text[:97] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value
