"""What the system refuses is found wherever a library hid it, and a fault of ours is not taken for it."""

from __future__ import annotations

import errno
import resource

import pytest

from ropewalk import starving
from ropewalk.cli import main
from ropewalk.errors import UserError
from ropewalk.starving import CURES, SHORTAGES, cured, refusal, require_room, told


def wrapped(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.ENOSPC, "No space", "/a/b"), (errno.ENOSPC, "/a/b")),
        (MemoryError(), (errno.ENOMEM, "")),
        (RuntimeError("I/O error: File too large (os error 27)"), (errno.EFBIG, "")),
        (RuntimeError("unable to open file <x>: Too many open files (24)"), (errno.EMFILE, "")),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), (errno.ENOMEM, "")),
        (RuntimeError("can't start new thread"), (errno.EAGAIN, "")),
        (wrapped(ValueError("cannot load"), OSError(errno.EMFILE, "many", "w")), (errno.EMFILE, "w")),
        (wrapped(KeyError("a"), FileExistsError(errno.EEXIST, "there", "w")), None),
        (OSError(errno.EIO, "Input/output error"), None),
        (ValueError("os error 27"), None),
        (AssertionError("ours"), None),
    ],
)
def test_a_refusal_is_found_and_a_fault_of_ours_is_not_one(error, found):
    assert refusal(error) == found


def test_a_line_of_ours_that_tells_a_shortage_tells_its_cure_once():
    said = cured("config.json cannot be read as JSON ([Errno 24] Too many open files: 'config.json')")
    assert said.endswith("); raise the limit on open files (ulimit -n), then run the same command again")
    assert cured(said) == said
    assert cured("model is not there; name another") == "model is not there; name another"


def test_a_model_that_cannot_be_opened_for_want_of_open_files_is_one_line_with_its_cure(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "config.json").write_text("{}")

    def refused(*args, **more):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("pathlib.Path.read_text", refused)
    assert main(["doctor", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert "Too many open files" in line and line.count("\n") == 1 and line.count("ulimit -n") == 1


def test_every_shortage_has_a_cure():
    assert set(SHORTAGES) <= set(CURES)


def test_a_line_about_a_refusal_names_what_was_written_to_and_the_cure():
    copied = OSError(errno.ENOSPC, "No space", "/from", None, "/to")
    assert told(copied) == f"No space left on device (/to): {CURES[errno.ENOSPC]}"
    serialized = RuntimeError("Error while serializing: I/O error: File too large (os error 27)")
    assert told(serialized) == f"File too large: {CURES[errno.EFBIG]}"
    assert told(ValueError("ours")) is None


@pytest.mark.parametrize(
    ("kind", "part"), [(resource.RLIMIT_NOFILE, "ulimit -n"), (resource.RLIMIT_AS, "ulimit -v")]
)
def test_a_limit_that_is_too_low_is_named(monkeypatch, kind, part):
    low = {kind: (10, 10)}
    free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(starving.resource, "getrlimit", lambda asked: low.get(asked, free))
    with pytest.raises(UserError, match=part):
        require_room("drawing", files=24, space=1 << 30)
    low.clear()
    require_room("drawing", files=24, space=1 << 30)
