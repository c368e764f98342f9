"""The errors a user can meet. A wrong spec is a `SpecError`; anything else that escapes is our bug."""

from __future__ import annotations

from dataclasses import dataclass


class GategenError(Exception):
    """Base of every error that gategen raises on purpose."""


class UnsupportedError(GategenError):
    """The spec is right, but this backend or command cannot do it."""


class MissingError(GategenError):
    """A package or a program is needed that is not installed, or does not work here."""

    exit_code = 3


class SpecWarning(UserWarning):
    """Something in a spec that is allowed but probably not meant, such as a name that nothing uses."""


@dataclass(frozen=True)
class Where:
    """A place in a spec file, as an editor would open it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class SpecError(GategenError, ValueError):
    """A mistake in a spec: where it is, what is wrong, in which equation, and what to write instead."""

    def __init__(
        self, message: str, *, where: Where | None = None, equation: str = "", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.equation = equation
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        equation = f"\n    {self.equation}" if self.equation else ""
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return head + equation + hint

    def at(self, where: Where | None, equation: str = "") -> SpecError:
        """The same error, placed: what is already known of the place is kept."""
        return SpecError(
            self.message, where=self.where or where, equation=self.equation or equation, hint=self.hint
        )
