"""JinaBERT text embeddings on any GPU or the CPU.

>>> import jinabert
>>> embedder = jinabert.Embedder("jinaai/jina-embeddings-v2-small-en")
>>> vectors = embedder.encode(["A blue cat", "A cat that is blue"])
>>> vectors.shape
(2, 512)
"""

import atexit

from ._embedder import Embedder, LateChunks, Ranked
from ._errors import (
    CacheError,
    ClosedError,
    ForkedError,
    GpuError,
    GpuMemoryError,
    HubError,
    InputError,
    JinabertError,
    ModelError,
    NetworkError,
    NoGpuError,
    NotFiniteError,
    NotFoundError,
    OptionError,
    ReadError,
    TooLongError,
)
from ._native import __version__, set_num_threads, settle
from ._precision import PRECISIONS, quantize_embeddings

__all__ = [
    "PRECISIONS",
    "CacheError",
    "ClosedError",
    "Embedder",
    "ForkedError",
    "GpuError",
    "GpuMemoryError",
    "HubError",
    "InputError",
    "JinabertError",
    "LateChunks",
    "ModelError",
    "NetworkError",
    "NoGpuError",
    "NotFiniteError",
    "NotFoundError",
    "OptionError",
    "Ranked",
    "ReadError",
    "TooLongError",
    "__version__",
    "quantize_embeddings",
    "set_num_threads",
]

atexit.register(settle)
