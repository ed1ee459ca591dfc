"""The two ways of saying no: to a user in one line, to a maintainer by assertion."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave cannot be used: what it is, its value, the limit, the cure, in one line.

    The command line prints it as ``ropewalk: <message>`` and exits with code 2.
    Broken invariants of our own are assertions and keep their traceback.
    """
