"""What is refused, with which exception, and what it says."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import MODEL, RERANKER

import jinabert

LONG = "word " * 20_000


class Frame:
    """As pandas' and polars': what it yields are names of columns."""

    columns = ("text",)

    def __iter__(self):
        return iter(self.columns)


def opened(**options):
    return jinabert.Embedder(MODEL, **{"device": "cpu"} | options)


CALLS = [
    # Texts
    (lambda e: e.encode([3]), TypeError, "input 0: expected a str, got int"),
    (lambda e: e.encode(["a", None]), TypeError, "input 1: expected a str, got NoneType"),
    (lambda e: e.encode(["a", ["b"]]), TypeError, "input 1: expected a str, got list"),
    (lambda e: e.encode(b"bytes"), TypeError, "got bytes"),
    (lambda e: e.encode([b"bytes"]), TypeError, "input 0: expected a str, got bytes"),
    (lambda e: e.encode({"a": 1}), TypeError, "got dict"),
    (lambda e: e.encode(None), TypeError, "got NoneType"),
    (lambda e: e.encode(3.5), TypeError, "got float"),
    (lambda e: e.encode(np.zeros(3)), TypeError, "input 0: expected a str, got float"),
    (lambda e: e.encode(np.array(3.5)), TypeError, "input 0: expected a str, got float"),
    (lambda e: e.encode(Frame()), TypeError, "expected texts, got Frame: pass one of its columns"),
    (lambda e: e.tokenize(Frame()), TypeError, "expected texts, got Frame"),
    (lambda e: e.late_chunks(Frame()), TypeError, "expected texts, got Frame"),
    (lambda e: e.encode(["a", "\ud800"]), jinabert.InputError, "input 1: not a text of Unicode"),
    (lambda e: e.encode([LONG]), jinabert.TooLongError, "over the limit of 8192"),
    (lambda e: e.encode(["a", "b"], prompt=LONG), jinabert.TooLongError, "input 0: "),
    # Options of a call
    (lambda e: e.encode("a", batch_size=0), ValueError, "batch_size: expected 1 or more, got 0"),
    (lambda e: e.encode("a", batch_size="32"), TypeError, "batch_size: expected an int, got str"),
    (lambda e: e.encode("a", truncate_dim=0), ValueError, "truncate_dim: expected 1 or more, got 0"),
    (lambda e: e.encode("a", truncate_dim=385), ValueError, "truncate_dim 385: the model has 1 to"),
    (lambda e: e.encode("a", truncate_dim=-1), jinabert.OptionError, "expected 1 or more, got -1"),
    (lambda e: e.encode("a", truncate_dim=1.5), TypeError, "truncate_dim: expected an int, got"),
    (lambda e: e.encode("a", precision="int4"), ValueError, "precision 'int4': float32, float16"),
    (lambda e: e.encode("a", precision="int8", normalize_embeddings=False), ValueError, "ranges"),
    (lambda e: e.encode("a", ranges=np.zeros((2, 384))), ValueError, "this is float32"),
    (lambda e: e.encode("a", precision="int8", ranges=np.zeros((3, 384))), ValueError, "(3, 384)"),
    (lambda e: e.encode("a", precision="int8", ranges=[[0], [1]]), ValueError, "1 components"),
    (lambda e: e.encode("a", precision="int8", ranges=np.ones((2, 384))), ValueError, "no range"),
    (lambda e: e.encode("a", output_value="logits"), ValueError, "output_value 'logits'"),
    (lambda e: e.encode("a", output_value=None), ValueError, "output_value None"),
    (
        lambda e: e.encode("a", output_value="token_embeddings", truncate_dim=3),
        ValueError,
        "neither scaled nor cut",
    ),
    (lambda e: e.encode("a", prompt_name="passage"), ValueError, "the prompts are none"),
    (lambda e: e.encode("a", device="cuda"), ValueError, "was opened on 'cpu'"),
    (lambda e: e.encode("a", device=0), ValueError, "device '0': this Embedder was opened on"),
    (lambda e: e.to("cuda"), ValueError, "open another: Embedder(model, device="),
    (lambda e: e.encode("a", pool={}), ValueError, "multiprocessing with spawn"),
    (lambda e: e.start_multi_process_pool(["cpu"]), ValueError, "multiprocessing with spawn"),
    (lambda e: e.encode_multi_process(["a"], {}), ValueError, "multiprocessing with spawn"),
    (lambda e: e.stop_multi_process_pool({}), ValueError, "multiprocessing with spawn"),
    (lambda e: e.tokenizer, AttributeError, "tokenize(texts) returns ids"),
    (lambda e: setattr(e, "max_seq_length", 2), ValueError, "max length 2: expected 3 to 8192"),
    (lambda e: setattr(e, "max_seq_length", 9000), ValueError, "9000: expected 3 to 8192"),
    (lambda e: setattr(e, "max_seq_length", None), TypeError, "expected an int, got None"),
    (lambda e: setattr(e, "max_seq_length", "a"), TypeError, "max_seq_length: expected an int"),
    (lambda e: e.encode("a", task="retrieval"), ValueError, "tasks of this model are none"),
    (lambda e: e.encode("a", convert_to_tensor=True), ImportError, "pip install torch"),
    (lambda e: e.late_chunks("a", "words:3"), ValueError, "words"),
    (lambda e: e.late_chunks("a", "tokens:0"), ValueError, "tokens:0"),
    (lambda e: e.late_chunks("abc", spans=[(2, 1)]), ValueError, "runs backwards"),
    (lambda e: e.late_chunks("abc", spans=[(0, 9)]), ValueError, "passes the end"),
    (lambda e: e.late_chunks("abc", spans=[(-1, 2)]), ValueError, "counted from 0"),
    (lambda e: e.late_chunks(["a", "b"], spans=[[(0, 1)]]), ValueError, "spans of 1 texts"),
    (lambda e: e.rerank("a", ["b"]), ValueError, "no reranker"),
    (lambda e: e.rerank(3, ["b"]), TypeError, "query"),
    (lambda e: e.rerank("a", "b"), TypeError, "documents"),
    (lambda e: e.rerank("a", np.array("b")), TypeError, "documents"),
    # Options of an Embedder
    (lambda e: opened(device="cuda"), jinabert.OptionError, "a device is"),
    (lambda e: opened(device="99"), jinabert.NoGpuError, "99"),
    (lambda e: opened(device=99), jinabert.NoGpuError, "99"),
    (lambda e: opened(device=1.5), TypeError, "device: expected a str or an int, got float"),
    (lambda e: opened(device=True), TypeError, "device: expected a str or an int, got bool"),
    (lambda e: opened(device=-1), jinabert.OptionError, "a device is"),
    (lambda e: opened(dtype="int8"), ValueError, "dtype `int8`: float32 and float16"),
    (lambda e: opened(dtype="float16"), ValueError, "f16"),
    (lambda e: opened(on_long="split"), ValueError, "on_long `split`"),
    (lambda e: opened(truncate=True, on_long="window"), ValueError, "contradict"),
    (lambda e: opened(pooling="median"), ValueError, "got `median`"),
    (lambda e: opened(max_length=2), ValueError, "max length 2"),
    (lambda e: opened(max_length=-1), ValueError, "max_length: expected 1 or more, got -1"),
    (lambda e: opened(overlap=-1), ValueError, "overlap: expected 0 or more, got -1"),
    (lambda e: opened(on_long="window", overlap=9000), ValueError, "overlap 9000 leaves no room"),
    (lambda e: opened(batch_tokens=0), ValueError, "batch_tokens: expected 1 or more, got 0"),
    (lambda e: opened(truncate_dim=999), ValueError, "truncate_dim 999: the model has 1 to 384"),
    (lambda e: opened(task="translate"), ValueError, "task `translate`"),
    (lambda e: opened(task="rerank"), jinabert.ModelError, "encoder without a head"),
    (lambda e: opened(default_prompt_name="passage"), ValueError, "prompt_name 'passage'"),
    (lambda e: opened(revision="main"), ValueError, "revision"),
    (lambda e: opened(speed="high"), TypeError, "speed"),
    (lambda e: jinabert.Embedder(RERANKER, "cpu", task="embed"), jinabert.ModelError, "reranker"),
    (lambda e: jinabert.Embedder(3), TypeError, "int"),
    (lambda e: jinabert.Embedder({}), TypeError, "from_files"),
    (lambda e: jinabert.Embedder(""), jinabert.ReadError, "got an empty path"),
    (lambda e: jinabert.Embedder.from_files({}, "cpu"), OSError, "config.json"),
    (lambda e: jinabert.Embedder.from_files({"config.json": "{}"}), TypeError, "expected bytes"),
    (lambda e: jinabert.Embedder.from_files({}, speed="high"), TypeError, "speed"),
    # Functions
    (lambda e: jinabert.set_num_threads(0), ValueError, "0 threads"),
    (lambda e: jinabert.set_num_threads(2), ValueError, "before the first Embedder"),
    (lambda e: jinabert.quantize_embeddings([1], "int8"), ValueError, "expected floats"),
    (lambda e: jinabert.quantize_embeddings(np.zeros((1, 1, 1)), "int8"), ValueError, "(1, 1, 1)"),
    (lambda e: jinabert.quantize_embeddings([0.5], "int4"), ValueError, "int4"),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_refused(cpu, number) -> None:
    call, kind, says = CALLS[number]
    with pytest.raises(kind) as raised:
        call(cpu)
    assert says in str(raised.value)
    # And it embeds as before.
    assert cpu.encode("a").shape == (384,)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        jinabert.Embedder(tmp_path, "cpu")
    assert isinstance(raised.value, jinabert.NotFoundError)
    assert raised.value.errno == errno.ENOENT
    missing = str(tmp_path / "config.json")
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert isinstance(error, jinabert.NotFoundError)
        assert str(error).startswith(f"cannot read `{missing}`: ")
        assert (error.filename, error.path, error.errno) == (missing, missing, errno.ENOENT)
        assert error.strerror


def test_damaged_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(jinabert.ModelError):
        jinabert.Embedder(tmp_path, "cpu")


def test_offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(jinabert.HubError) as raised:
        jinabert.Embedder("jinaai/jina-embeddings-v2-small-en", "cpu", cache_dir=tmp_path)
    assert "no directory `jinaai/jina-embeddings-v2-small-en` either" in str(raised.value)


def test_classes() -> None:
    for name in jinabert.__all__:
        value = getattr(jinabert, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, jinabert.JinabertError)
            assert issubclass(value, RuntimeError)
    assert issubclass(jinabert.TooLongError, ValueError)
    assert issubclass(jinabert.ReadError, OSError)
    assert issubclass(jinabert.GpuMemoryError, MemoryError)
