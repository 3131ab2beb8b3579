"""What a type checker makes of the package; checked, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import jinabert

if TYPE_CHECKING:
    from typing_extensions import assert_type

embedder = jinabert.Embedder("models/jinabert-mini-en", device="cpu", max_length=512, truncate=True)
assert_type(embedder.encode("a"), NDArray[Any])
assert_type(embedder.encode(["a"], batch_size=8, show_progress_bar=False), NDArray[Any])
assert_type(embedder.late_chunks("a"), jinabert.LateChunks)
assert_type(embedder.late_chunks(["a"], "sentences:1"), list[jinabert.LateChunks])
assert_type(embedder.late_chunks("a").embeddings, NDArray[np.float32])
assert_type(embedder.rerank("a", ["b"])[0]["corpus_id"], int)
assert_type(embedder.tokenize("a"), list[int])
with jinabert.Embedder.from_files({"config.json": b""}, truncate_dim=64) as other:
    assert_type(other, jinabert.Embedder)
    assert_type(other.dim, int)
try:
    embedder.encode(np.array(["a", "b"]), precision="ubinary", normalize_embeddings=True)
except jinabert.TooLongError as error:
    assert_type(error.tokens, int)
assert_type(embedder.encode("a", precision=None, device=0), NDArray[Any])
assert_type(jinabert.Embedder("models/jinabert-mini-en", device=0).eval(), jinabert.Embedder)
embedder.max_seq_length = 128
jinabert.Embedder(3)  # type: ignore[arg-type]
embedder.encode("a", precision="int4")  # type: ignore[call-overload]
