"""Quantisation of vectors, with the arithmetic of sentence-transformers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native
from ._errors import OptionError

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]

PRECISIONS = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
"""Precisions of sentence-transformers, and float16."""

Ranges = tuple[list[float], list[float]]


def check(precision: str) -> None:
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: {', '.join(PRECISIONS)} are known")


def named(array: NDArray[Any], precision: str) -> NDArray[Any]:
    """Views the bytes of an array as numbers of its precision."""
    if precision == "float16":
        return array.view("<f2")
    return array.view(np.int8) if precision in ("int8", "binary") else array


def pair(ranges: ArrayLike | None) -> Ranges | None:
    """Minimum and maximum of each component, in the format of sentence-transformers."""
    if ranges is None:
        return None
    array = np.asarray(ranges, dtype=np.float32)
    if array.ndim != 2 or len(array) != 2:
        raise OptionError(f"ranges: expected a shape (2, components), got {array.shape}")
    return array[0].tolist(), array[1].tolist()


def quantize_embeddings(
    embeddings: ArrayLike,
    precision: Precision,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[Any]:
    """Quantises embeddings; the argument names are those of sentence-transformers.

    `ranges` are the minimum and maximum of each component, shape (2, components);
    `calibration_embeddings` are vectors from which they are computed. Both are for int8 and uint8.
    Without them, all components have one range, ±6/√components, at most ±1, meant for unit vectors:
    the codes of a vector do not depend on other vectors. (sentence-transformers computes the ranges
    from the vectors that it quantises.)

    One vector gives shape (components,), several vectors give shape (n, components).
    """
    check(precision)
    if not precision.endswith("int8") and not (ranges is None and calibration_embeddings is None):
        raise OptionError(f"ranges are for int8 and uint8; this is {precision}")
    array = np.asarray(embeddings)
    if array.dtype.kind != "f":
        raise OptionError(f"embeddings: expected floats, got {array.dtype}")
    if array.ndim not in (1, 2):
        raise OptionError(f"embeddings: expected one or two dimensions, got a shape {array.shape}")
    rows = np.ascontiguousarray(np.atleast_2d(array), dtype=np.float32)
    if ranges is None and calibration_embeddings is not None:
        vectors = np.asarray(calibration_embeddings, dtype=np.float32)
        if vectors.ndim != 2 or not len(vectors):
            raise OptionError(f"calibration_embeddings of shape {vectors.shape}: no vectors")
        ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
    found = named(_native.quantize(rows, precision, pair(ranges)), precision)
    return found[0] if array.ndim == 1 else found
