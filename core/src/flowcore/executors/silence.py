"""How long a provider has given no answer."""

from __future__ import annotations

import time

import attrs


@attrs.frozen
class Silence:
    """Calls of a provider in a row that got no answer.

    Attributes:
        since: when the first of them failed, on the clock of `time.monotonic`.
        times: how many there were.
        error: what the last one raised.
    """

    since: float
    times: int
    error: Exception

    @classmethod
    def after(cls, before: Silence | None, error: Exception) -> Silence:
        """Return the silence to which one more failed call belongs; None for `before` where it is the first."""
        return cls(time.monotonic(), 1, error) if before is None else cls(before.since, before.times + 1, error)

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self.since

    def __str__(self) -> str:
        said = (getattr(self.error, "stderr", None) or "").strip() or str(self.error).partition("\n")[0]
        return f"no answer for {self.seconds:.0f} s: {said}"


def is_unanswered(error: Exception | None) -> bool:
    """Whether the error of a submission says that nobody answered; the errors of any provider may have that field."""
    return getattr(error, "unanswered", False)
