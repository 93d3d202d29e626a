"""Trouble that the user can put right."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right.

    Args:
        message: one sentence: what is wrong with what, and what to do.
        code: a name for the kind of error that stays the same when the wording changes, such as `no_weights`.
    """

    def __init__(self, message: str, code: str = "invalid_input"):
        super().__init__(message)
        self.code = code
