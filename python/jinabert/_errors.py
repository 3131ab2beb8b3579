"""What can go wrong. Every class is a JinabertError, and what Python calls such a thing."""

from __future__ import annotations


class JinabertError(RuntimeError):
    """What every error of this package is."""


class OptionError(JinabertError, ValueError):
    """Options contradict the model or each other, or are not known."""


class InputError(JinabertError, ValueError):
    """One of the inputs cannot be embedded."""

    index: int
    """Its position in the list, from 0."""


class TooLongError(InputError):
    """A text is over the limit, and is not to be cut."""

    tokens: int
    """Its length, special tokens included."""
    limit: int


class ReadError(JinabertError, OSError):
    """A file cannot be read."""

    path: str


class NotFoundError(ReadError, FileNotFoundError):
    """A file, or the model's directory, is not there."""


class ModelError(JinabertError):
    """Model files are damaged, contradict each other, or are for something else."""


class NoGpuError(JinabertError):
    """There is no such device, or it lacks something."""


class GpuError(JinabertError):
    """The device failed."""


class GpuMemoryError(GpuError, MemoryError):
    """The device's memory is too small, even for smaller batches."""


class NotFiniteError(GpuError, ArithmeticError):
    """The device returned what is not finite."""


class HubError(JinabertError):
    """The hub has no such model, or not for this caller, or may not be asked."""


class NetworkError(JinabertError, ConnectionError):
    """The hub cannot be reached, or sends what it did not announce."""


class CacheError(JinabertError, OSError):
    """The cache of the hub's models cannot be written."""

    path: str


class ClosedError(JinabertError, ValueError):
    """The Embedder was closed."""


class ForkedError(JinabertError):
    """The Embedder was opened in the process that this one is a fork of."""
