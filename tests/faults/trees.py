"""What lies in an output directory, and what is wrong with it measured by an uninterrupted run's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from forks import forked

from ropewalk.files import RECORD


def contents(root: Path) -> dict[str, bytes]:
    """Every file below ``root``, hidden ones too, by its path; directories that hold nothing end in '/'."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name + "/"] = b""
    return found


def hidden(name: str) -> bool:
    """Does a part of the path begin with a dot? Such names promise nothing."""
    return any(part.startswith(".") for part in name.split("/"))


def half_written(
    found: dict[str, bytes], whole: dict[str, bytes], before: dict[str, bytes] | None = None
) -> list[str]:
    """What stands under a final name in ``found`` and is not what ``whole`` has there, to the byte.

    before: what was there, whole too, until a later step replaced it (a model card without results yet).
    A directory with a record (but the topmost, which fills step by step) must have all of its files.
    """
    problems = [
        f"{name} is not in the whole run" if name not in whole else f"{name} differs"
        for name, data in found.items()
        if not hidden(name)
        and not name.endswith("/")
        and data not in (whole.get(name), (before or {}).get(name))
    ]
    steps = {name.rpartition("/")[0] for name in whole if name.endswith("/" + RECORD) and name.count("/") > 1}
    for step in sorted(steps):
        want = {name for name in whole if name.startswith(step + "/")}
        have = {name for name in found if name.startswith(step + "/") and not hidden(name)}
        if have and have != want:
            problems.append(f"{step} lacks {sorted(want - have)}")
    return problems


def unreadable(root: Path) -> list[str]:
    """Final names that cannot be read at all: broken JSON, weights that do not fit their size."""
    problems = []
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if hidden(name) or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                _check_weights(path)
            elif path.suffix == ".gguf":
                from gguf import GGUFReader

                for tensor in GGUFReader(path).tensors:
                    assert tensor.data_offset + tensor.n_bytes <= path.stat().st_size, tensor.name
        except (ValueError, AssertionError, IndexError, OSError) as error:
            problems.append(f"{name}: {error}")
    return problems


def _check_weights(path: Path) -> None:
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        assert 8 + length <= path.stat().st_size, "the header is cut off"
        header = json.loads(stream.read(length))
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    assert 8 + length + max(ends) == path.stat().st_size, "the tensors are cut off"


def broken_checkpoints(root: Path) -> list[str]:
    """Checkpoints of a training under their final names that are not whole."""
    from ropewalk.train.keeping import damage

    places = [p for p in root.rglob("checkpoint-*") if p.parent.name.endswith(".training")]
    return [f"{p.relative_to(root)}: {why}" for p in places if (why := damage(p)) is not None]


def differences(found: dict[str, bytes], whole: dict[str, bytes]) -> list[str]:
    """Names in which two trees differ, hidden ones and leftovers included."""
    return sorted(name for name in {*found, *whole} if found.get(name) != whole.get(name))


def before_report(work: Callable[[], int], root: Path, place: Path) -> dict[str, bytes]:
    """What ``work``, run in a child, has in ``root`` when a report begins; kept in ``place`` meanwhile."""

    def watched() -> int:
        from ropewalk.verbs import report as verb

        real = verb.report

        def report(*words: object, **more: object) -> object:
            shutil.copytree(root, place)
            return real(*words, **more)

        verb.report = report
        return work()

    ended = forked(watched)
    assert ended.code == 0, ended.errors
    found = contents(place) if place.exists() else {}
    shutil.rmtree(place, ignore_errors=True)
    return found
