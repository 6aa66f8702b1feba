"""What goes wrong, as exceptions: the messages and hints of the command.

>>> from causalcone import InputError
>>> error = InputError("edit 0: there is no layer 99", "layers are 0 to 29")
>>> print(error)
edit 0: there is no layer 99
  hint: layers are 0 to 29
>>> isinstance(error, ValueError)
True
"""

from __future__ import annotations


class CausalconeError(Exception):
    """The base of all: `message` says what was given and what would fit, `hint` what to try, if anything."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


class InputError(CausalconeError, ValueError):
    """What was asked for cannot be done: an experiment contradicts itself or the model, a file is broken."""


class RunError(CausalconeError, RuntimeError):
    """What was asked for is in order, and could not be done: no memory, a full disk, numbers that overflow."""


class InternalError(RunError):
    """Something that must be true of causalcone itself is not: a fault of the library. Please report it."""


class ClosedError(RunError):
    """The model was closed."""
