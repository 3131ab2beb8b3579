"""Exceptions: each derives from JinabertError and a matching built-in class, if there is one."""

from __future__ import annotations

from typing import Any


class JinabertError(RuntimeError):
    """Base class of all errors of this package."""


class OptionError(JinabertError, ValueError):
    """Options are unknown, or contradict the model or each other."""


class InputError(JinabertError, ValueError):
    """One of the inputs cannot be embedded."""

    index: int
    """Index of the input in the list, from 0."""


class TooLongError(InputError):
    """A text is over the token limit, and truncation is off."""

    tokens: int
    """Length of the text in tokens, special tokens included."""
    limit: int
    """Token limit."""


class _FileError(JinabertError, OSError):
    """Error of a file, with `filename`, `errno` and `strerror` like every OSError."""

    path: str
    """Same as `filename`."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("path", "filename", "errno", "strerror")
        return type(self), self.args, {name: getattr(self, name, None) for name in names}


class ReadError(_FileError):
    """A file cannot be read."""


class NotFoundError(ReadError, FileNotFoundError):
    """A file or the model directory does not exist."""


class ModelError(JinabertError):
    """Model files are damaged, contradict each other, or do not fit the task."""


class NoGpuError(JinabertError):
    """There is no such device, or it lacks a required feature."""


class GpuError(JinabertError):
    """The device failed."""


class GpuMemoryError(GpuError, MemoryError):
    """The device's memory is too small, even for smaller batches."""


class NotFiniteError(GpuError, ArithmeticError):
    """The device returned NaN or infinity."""


class HubError(JinabertError):
    """The model does not exist on the hub, access is denied, or requests are disabled."""


class NetworkError(JinabertError, ConnectionError):
    """The hub is unreachable, or its response is invalid."""


class CacheError(_FileError):
    """The cache for hub models cannot be written."""


class ClosedError(JinabertError, ValueError):
    """The Embedder was closed."""


class ForkedError(JinabertError):
    """The Embedder was opened in the parent process, before this process was forked."""
