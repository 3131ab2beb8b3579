"""Interface of the native module; import `jinabert` instead."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Model", "__version__", "quantize", "set_num_threads", "settle"]
__version__: str

# Number of truncated texts; index and length in tokens of the first one.
_Cut: TypeAlias = tuple[int, tuple[int, int] | None]

@final
class Model:
    def __new__(
        cls,
        source: str | dict[str, bytes],
        opening: Mapping[str, Any],
        heard: Callable[[str, int, int], object] | None = None,
    ) -> Model: ...
    def set_max_length(self, max_length: int) -> None: ...
    def close(self) -> None: ...
    def facts(self) -> dict[str, Any]: ...
    def allocated_bytes(self) -> int: ...
    def encode(
        self,
        texts: list[str],
        asked: Mapping[str, Any],
        precision: str,
        ranges: tuple[list[float], list[float]] | None = None,
        heard: Callable[[str, int, int], object] | None = None,
    ) -> tuple[NDArray[Any], _Cut]: ...
    def encode_tokens(
        self, texts: list[str], task: str | None = None
    ) -> tuple[list[NDArray[np.float32]], _Cut]: ...
    def rerank(
        self, query: str, documents: list[str]
    ) -> tuple[list[tuple[int, float, float]], _Cut]: ...
    def late_chunks(
        self,
        texts: list[str],
        cuts: str | list[list[tuple[int, int]]],
        asked: Mapping[str, Any],
        prompt: str,
    ) -> list[tuple[list[tuple[int, int]], NDArray[np.float32], int, int | None]]: ...
    def tokenize(self, texts: list[str]) -> tuple[list[list[int]], _Cut]: ...

def set_num_threads(threads: int) -> None: ...
def quantize(
    rows: NDArray[np.float32],
    precision: str,
    ranges: tuple[list[float], list[float]] | None,
) -> NDArray[Any]: ...
def settle() -> None: ...
