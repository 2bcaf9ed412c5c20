"""What goes wrong when a call or its outcome is turned into bytes, or back."""

from __future__ import annotations

import attrs

from flowcore.errors import FlowcoreError


@attrs.define(eq=False, slots=False)
class SerializationError(FlowcoreError, TypeError):
    """An argument, a function or a result cannot be sent to another process.

    Attributes:
        fname: name of the function whose call or result it was.
        reason: what the serializer said.
        what: which part of the call.
    """

    fname: str
    reason: str = ""
    what: str = "an argument"

    def __str__(self) -> str:
        return (
            f"{self.what} of {self.fname} cannot be sent to another process: {self.reason or 'it does not pickle'}\n"
            "  pass data that pickles; open files, locks, generators and connections are made inside the task"
        )


@attrs.define(eq=False, slots=False)
class DeserializationError(FlowcoreError):
    """Bytes that arrived cannot be turned back into the object they stand for.

    Attributes:
        what: what the bytes stand for.
        reason: what the deserializer said.
    """

    what: str
    reason: str = ""

    def __str__(self) -> str:
        return (
            f"{self.what} cannot be rebuilt in this process: {self.reason}\n"
            "  is the same code importable here, and at the same version?"
        )


class DeserializerPluginError(DeserializationError):
    """The bytes name a method of serialization that is not available here."""


@attrs.define(eq=False, slots=False)
class RemoteExceptionError(FlowcoreError):
    """A task raised an exception that cannot be brought here as itself.

    Attributes:
        type_name: the exception's type, qualified.
        message: its text.
        traceback: the remote traceback, formatted.
        reason: why the exception itself could not come.
    """

    type_name: str
    message: str
    traceback: str = ""
    reason: str = ""

    def __str__(self) -> str:
        lines = [f"{self.type_name}: {self.message}"]
        if self.reason:
            lines.append(f"  (the exception itself could not be brought here: {self.reason})")
        if self.traceback:
            lines += ["", self.traceback.rstrip()]
        return "\n".join(lines)
