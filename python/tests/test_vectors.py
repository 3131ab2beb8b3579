"""Vectors, scores and chunks: those of the command line on the same device."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import COLBERT, MODEL, RERANKER, TASKS, TEXTS, TINY, command, jsonl

import jinabert

# What two programs may differ by on one device.
BOUND = 1e-6


def by_command(tmp: Path, device: str, *more: object) -> np.ndarray:
    where = ["--input", jsonl(tmp / "texts.jsonl", TEXTS), "--output", tmp / "vectors.npy"]
    command("embed", "--model", MODEL, "--device", device, "--no-tune", *where, *more)
    return np.load(tmp / "vectors.npy")


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, []),
        ({"truncate_dim": 100}, ["--dimensions", "100"]),
        ({"normalize_embeddings": False}, ["--no-normalize"]),
        (
            {"normalize_embeddings": False, "truncate_dim": 7},
            ["--no-normalize", "--dimensions", "7"],
        ),
    ],
)
def test_floats(tmp_path, embedder, device, options, arguments) -> None:
    vectors = embedder.encode(TEXTS, **options)
    expected = by_command(tmp_path, device, *arguments)
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape
    assert vectors.flags.c_contiguous
    assert vectors.flags.writeable
    assert np.abs(vectors - expected).max() <= BOUND * max(1, np.abs(expected).max())


@pytest.mark.parametrize("precision", jinabert.PRECISIONS)
def test_precisions(tmp_path, embedder, device, precision) -> None:
    codes = embedder.encode(TEXTS, precision=precision)
    expected = by_command(tmp_path, device, "--precision", precision)
    assert codes.dtype == expected.dtype
    assert codes.shape == expected.shape
    if precision in ("float32", "float16"):
        step = {"float32": BOUND, "float16": 1e-3}[precision]
        assert np.abs(codes.astype(float) - expected.astype(float)).max() <= step
    elif precision in ("int8", "uint8"):
        assert np.abs(codes.astype(int) - expected.astype(int)).max() <= 1
        assert (codes == expected).mean() > 0.999
    else:
        bits = [np.unpackbits(each.view(np.uint8), axis=1) for each in (codes, expected)]
        assert (bits[0] != bits[1]).mean() < 0.001
    floats = embedder.encode(TEXTS)
    assert np.array_equal(jinabert.quantize_embeddings(floats, precision), codes)


def test_one_text_is_one_vector(embedder) -> None:
    one, same = embedder.encode("A blue cat"), embedder.encode(["A blue cat"])
    assert one.shape == (embedder.dim,)
    assert same.shape == (1, embedder.dim)
    assert np.array_equal(one, same[0])
    assert abs(np.linalg.norm(one) - 1) < 1e-5


def test_what_yields_texts(cpu) -> None:
    expected = cpu.encode(TEXTS)
    for texts in (tuple(TEXTS), iter(TEXTS), np.array(TEXTS), np.array(TEXTS, dtype=object)):
        assert np.abs(cpu.encode(texts) - expected).max() <= BOUND
    empty = cpu.encode([])
    assert (empty.shape, empty.dtype) == ((0, cpu.dim), np.float32)
    assert cpu.encode([], precision="binary").shape == (0, cpu.dim // 8)
    assert cpu.encode([], output_value="token_embeddings") == []


def test_kinds_of_results(cpu) -> None:
    expected = cpu.encode(TEXTS)
    rows = cpu.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(rows, list)
    assert np.array_equal(np.stack(rows), expected)
    states = cpu.encode(TEXTS, output_value="token_embeddings")
    ids = cpu.tokenize(TEXTS)
    assert [len(state) for state in states] == [len(one) for one in ids]
    means = np.stack([state.mean(axis=0) for state in states])
    assert np.abs(cpu.similarity_pairwise(means, expected) - 1).max() < 1e-5
    assert cpu.tokenize("A blue cat") == ids[0]


def test_prompts(cpu) -> None:
    whole = cpu.encode("query: A blue cat")
    assert np.array_equal(cpu.encode("A blue cat", prompt="query: "), whole)
    prompts = {"query": "query: ", "passage": "passage: "}
    with jinabert.Embedder(MODEL, device="cpu", prompts=prompts) as other:
        assert np.array_equal(other.encode("A blue cat", prompt_name="query"), whole)
        assert np.array_equal(other.encode("A blue cat", "query"), whole)  # as it is ordered there
        assert np.array_equal(other.encode_query("A blue cat"), whole)
        passage = other.encode("passage: A blue cat")
        assert np.array_equal(other.encode_document("A blue cat"), passage)
        assert np.array_equal(other.encode("query: A blue cat"), whole)
    plain = cpu.encode("A blue cat")
    assert np.array_equal(cpu.encode_query("A blue cat"), plain)
    assert np.array_equal(cpu.encode("A blue cat", prompt_name="document"), plain)
    assert np.array_equal(cpu.encode("A blue cat", device="cpu"), plain)
    assert np.array_equal(cpu.encode("A blue cat", device=cpu.device), plain)


def test_tasks(tmp_path, device) -> None:
    text = "How do I prune an old apple tree?"

    def by_command(*more: str) -> np.ndarray:
        words = ["embed", "--model", TASKS, "--device", device, "--no-tune", *more, text]
        return np.array(json.loads(command(*words))["embedding"], dtype=np.float32)

    with jinabert.Embedder(TASKS, device=device) as model:
        assert list(model.tasks) == [
            "retrieval.query",
            "retrieval.passage",
            "separation",
            "classification",
            "text-matching",
        ]
        instruction = model.tasks["retrieval.query"]
        assert instruction.startswith("Represent the query") and model.tasks["separation"] == ""
        plain = model.encode(text)
        assert np.abs(plain - by_command()).max() <= BOUND
        for task in model.tasks:
            found = model.encode(text, task=task)
            assert np.abs(found - by_command("--task", task)).max() <= BOUND
            assert np.abs(found - plain).max() > 0.01
        query = model.encode(text, task="retrieval.query")
        for same in (
            model.encode_query(text),
            model.encode(text, task="retrieval.query", prompt_name="retrieval.query"),
            model.encode(instruction + text, task="retrieval.query", prompt=""),
            model.late_chunks(text, "tokens:1000", task="retrieval.query").embeddings[0],
        ):
            assert np.abs(same - query).max() <= 1e-5
        passage = model.encode(text, task="retrieval.passage")
        assert np.abs(model.encode_document(text) - passage).max() <= BOUND
        states = model.encode(text, task="retrieval.query", output_value="token_embeddings")
        mean = states.mean(axis=0)
        assert np.abs(mean / np.linalg.norm(mean) - query).max() <= 1e-5
        with pytest.raises(jinabert.OptionError, match="text-matching"):
            model.encode(text, task="clustering")
        with pytest.raises(jinabert.OptionError, match="16, 32, 64"):
            model.encode(text, truncate_dim=20)
    with jinabert.Embedder(TASKS, device=device, any_dimensions=True) as model:
        assert model.encode(text, truncate_dim=20).shape == (20,)
    with jinabert.Embedder(TINY, device="cpu") as model:
        assert model.tasks == {}
        with pytest.raises(jinabert.OptionError, match="this model are none"):
            model.encode(text, task="separation")


def test_declared_prompts_and_lengths(tmp_path) -> None:
    for path in MODEL.iterdir():
        (tmp_path / path.name).symlink_to(path)
    prompts = {"query": "query: ", "passage": "passage: "}
    declared = {"prompts": prompts, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(declared))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    whole, chunked = "query: A blue cat", {"chunk": "tokens:100"}
    with jinabert.Embedder(MODEL, device="cpu") as plain:
        texts = [whole, "A blue cat", "passage: A blue cat"]
        expected = {text: plain.encode(text) for text in texts}
        [chunk] = plain.late_chunks(whole, **chunked).embeddings
    with jinabert.Embedder(tmp_path, device="cpu") as model:
        assert (model.prompts, model.default_prompt_name) == (prompts, "query")
        assert model.max_seq_length == 256
        assert np.array_equal(model.encode("A blue cat"), expected[whole])
        assert np.array_equal(model.encode("A blue cat", prompt=""), expected["A blue cat"])
        passage = model.encode("A blue cat", prompt_name="passage")
        assert np.array_equal(passage, expected["passage: A blue cat"])
        assert np.array_equal(model.encode_document("A blue cat"), passage)
        late = model.late_chunks("A blue cat", **chunked)
        assert (late.texts, late.spans) == (["A blue cat"], [(0, 10)])
        assert np.abs(late.embeddings[0] - chunk).max() <= BOUND
        with pytest.raises(jinabert.OptionError, match="the prompts are passage, query"):
            model.encode("a", prompt_name="other")
    own = {"query": "ask: ", "x": "y"}
    options = {"prompts": own, "default_prompt_name": "passage", "max_length": 20}
    with jinabert.Embedder(tmp_path, device="cpu", **options) as model:
        assert model.prompts == {"query": "ask: ", "passage": "passage: ", "x": "y"}
        assert (model.default_prompt_name, model.max_seq_length) == ("passage", 20)
        assert np.array_equal(model.encode("A blue cat"), expected["passage: A blue cat"])
    declared = {"prompts": {"passage": "passage: "}, "default_prompt_name": "passage"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(declared))
    with jinabert.Embedder(tmp_path, device="cpu") as model:
        assert np.array_equal(model.encode_query("A blue cat"), expected["A blue cat"])


def test_many_texts_keep_their_order(cpu) -> None:
    texts = [f"{n % 7} cats" for n in range(70_000)]  # more than are embedded at a time
    heard: list[int] = []
    with jinabert.Embedder(TINY, device="cpu") as tiny:
        expected = tiny.encode(texts[:7])
        vectors = tiny.encode(texts)
        array, _ = tiny._model.encode(
            texts, tiny._asked(None, None), "float32", None, lambda *at: heard.append(at[1])
        )
    assert np.abs(vectors - np.tile(expected, (10_000, 1))).max() <= BOUND
    assert np.abs(vectors - array).max() <= BOUND
    assert heard == sorted(heard)
    assert heard[-1] == len(texts)


def test_long_texts(cpu, caplog) -> None:
    long = "word " * 400
    with pytest.raises(jinabert.TooLongError) as raised:
        with jinabert.Embedder(MODEL, device="cpu", max_length=64) as short:
            short.encode(["a", long])
    error = raised.value
    assert (error.index, error.limit) == (1, 64)
    assert error.tokens > 64
    with jinabert.Embedder(MODEL, device="cpu", max_length=64, truncate=True) as short:
        assert short.max_seq_length == 64
        short.encode(["a", long, long])
        assert "2 texts were cut to 64 tokens; the first is input 1, " in caplog.text
        caplog.clear()
        assert len(short.tokenize(long)) == 64
        assert short.encode(long, output_value="token_embeddings").shape == (64, 384)
        assert caplog.text.count("1 texts were cut to 64 tokens; the first is input 0, ") == 2
    with jinabert.Embedder(MODEL, device="cpu", max_length=64, on_long="window", overlap=8) as some:
        windows = some.encode(long)
    assert cpu.similarity(windows, cpu.encode(long))[0, 0] > 0.9


def test_as_sentence_transformers_users_call(cpu) -> None:
    texts = ["A blue cat", "Taxes", "Bread"]
    expected = cpu.encode(texts)
    assert cpu.encode(texts, precision=None).dtype == np.float32
    # An array of no dimension is one text.
    one = np.array(texts[0])
    assert cpu.encode(one).shape == (384,)
    assert cpu.encode(one, output_value="token_embeddings").shape == (len(cpu.tokenize(one)), 384)
    assert cpu.late_chunks(one).text == texts[0]
    # A column, of pandas' or another's, is a list of texts.
    column = type("Series", (), {"tolist": lambda self: texts})()
    assert np.abs(cpu.encode(column) - expected).max() <= BOUND
    assert cpu.to("cpu").eval() is cpu
    assert not hasattr(cpu, "tokenizer")
    with jinabert.Embedder(MODEL, device=None, fallback=True) as other:
        assert other.to(None) is other
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": texts}, index=[7, 8, 9])
    assert np.abs(cpu.encode(frame["text"]) - expected).max() <= BOUND
    with pytest.raises(TypeError, match="expected texts, got DataFrame: pass one of its columns"):
        cpu.encode(frame)


def test_max_seq_length(caplog) -> None:
    long = "word " * 40
    with jinabert.Embedder(MODEL, device="cpu", max_length=64, truncate=True) as model:
        whole = model.encode(long)
        assert (model.max_seq_length, len(model.tokenize(long))) == (64, 42)
        model.max_seq_length = np.int64(16)
        assert model.max_seq_length == model.get_max_seq_length() == 16
        assert len(model.tokenize(long)) == 16
        assert "1 texts were cut to 16 tokens; the first is input 0, 42 tokens" in caplog.text
        assert model.encode(long, output_value="token_embeddings").shape == (16, 384)
        assert model.late_chunks(long).truncated == 42
        short = model.encode(long)
        with jinabert.Embedder(MODEL, device="cpu", max_length=16, truncate=True) as opened:
            assert np.abs(opened.encode(long) - short).max() <= BOUND
        with pickle.loads(pickle.dumps(model)) as other:
            assert other.max_seq_length == 16
        model.max_seq_length = 64
        assert np.abs(model.encode(long) - whole).max() <= BOUND
    with jinabert.Embedder(MODEL, device="cpu") as model:
        model.max_seq_length = 16
        with pytest.raises(jinabert.TooLongError) as raised:
            model.encode(long)
        assert (raised.value.tokens, raised.value.limit) == (42, 16)
    windows = {"on_long": "window", "overlap": 4}
    with jinabert.Embedder(MODEL, device="cpu", **windows) as model:
        model.max_seq_length = 16
        with jinabert.Embedder(MODEL, device="cpu", max_length=16, **windows) as opened:
            assert np.abs(opened.encode(long) - model.encode(long)).max() <= BOUND


def test_late_chunks(tmp_path, embedder, device) -> None:
    text = "Berlin is a city. It has many museums. Ägypten liegt weit fort 🐈. The end."
    chunks = embedder.late_chunks(text, "sentences:1")
    out = command(
        *("embed", "--model", MODEL, "--device", device, "--no-tune", "--late-chunking"),
        *("--chunk", "sentences:1", "--input", jsonl(tmp_path / "texts.jsonl", [text])),
        *("--format", "jsonl"),
    )
    expected = [json.loads(line) for line in out.splitlines()]
    assert len(chunks) == len(expected) == 4
    assert "".join(chunks.texts) == text
    assert [one["text"] for one in expected] == chunks.texts
    difference = chunks.embeddings - np.array([one["embedding"] for one in expected])
    assert np.abs(difference).max() <= BOUND
    assert chunks.truncated is None
    assert chunks.tokens == len(embedder.tokenize(text))
    spans = [(0, 6), (18, 38)]
    [cut, other] = embedder.late_chunks([text, "A blue cat"], spans=[spans, [(2, 6)]])
    assert (cut.spans, cut.texts) == (spans, [text[:6], text[18:38]])
    assert other.texts == ["blue"]
    assert [words for words, _ in cut] == cut.texts
    some = embedder.late_chunks(text, truncate_dim=5, normalize_embeddings=False)
    assert some.embeddings.shape == (1, 5)
    shared = embedder.late_chunks("a a a a a", "tokens:3:1")
    assert shared.spans == [(0, 6), (4, 9)]


def test_rerank(tmp_path, device, caplog) -> None:
    documents = ["a dog", "a blue cat", "what is blue?", "", "cats and dogs"]
    lines = tmp_path / "documents.jsonl"
    out = command(
        *("rerank", "--model", RERANKER, "--device", device, "--no-tune"),
        *("a blue cat", "--input", jsonl(lines, documents)),
    )
    expected = [json.loads(line) for line in out.splitlines()]
    with jinabert.Embedder(RERANKER, device=device, tune=False) as reranker:
        assert reranker.task == "rerank"
        ranked = reranker.rerank("a blue cat", documents, return_documents=True)
        assert [one["corpus_id"] for one in ranked] == [one["index"] for one in expected]
        scores = np.array([one["score"] for one in ranked])
        assert np.abs(scores - [one["score"] for one in expected]).max() <= BOUND
        assert all(one["text"] == documents[one["corpus_id"]] for one in ranked)
        assert np.abs(scores - [1 / (1 + np.exp(-one["logit"])) for one in ranked]).max() < 1e-6
        best = reranker.rank("a blue cat", documents, top_k=2)
        assert [one["corpus_id"] for one in best] == [one["corpus_id"] for one in ranked[:2]]
        assert set(best[0]) == {"corpus_id", "score", "logit"}
        assert reranker.rerank("a blue cat", []) == []
        with pytest.raises(jinabert.OptionError, match="makes no embeddings"):
            reranker.encode("a blue cat")
    with jinabert.Embedder(RERANKER, device="cpu", max_length=16, truncate=True) as short:
        assert len(short.rank("a cat", ["a dog", "dogs " * 40], batch_size=1)) == 2
        assert "1 texts were cut to 16 tokens; the first is input 1, " in caplog.text


def test_rerank_by_max_sim() -> None:
    # Of the fixture's `maxsim`: 32 tokens of the query.
    with jinabert.Embedder(COLBERT, device="cpu") as model:
        [found] = model.rerank("橋はどこですか", ["古い橋は川の上流にある。"])
    assert abs(found["logit"] - 26.865511858861) < 1e-3
    assert abs(found["score"] - 26.865511858861 / 32) < 1e-4


def test_files_in_memory(cpu) -> None:
    files = {path.name: path.read_bytes() for path in MODEL.iterdir()}
    with jinabert.Embedder.from_files(files, "cpu", truncate_dim=64) as other:
        files.clear()
        assert other.dim == 64
        difference = other.encode(TEXTS) - cpu.encode(TEXTS, truncate_dim=64)
        assert np.abs(difference).max() <= BOUND


def test_ranges(cpu) -> None:
    vectors = cpu.encode(TEXTS)
    ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
    expected = np.floor((vectors - ranges[0]) / ((ranges[1] - ranges[0]) / 255)).clip(0, 255)
    codes = cpu.encode(TEXTS, precision="uint8", ranges=ranges)
    assert np.abs(codes.astype(int) - expected).max() <= 1
    again = jinabert.quantize_embeddings(vectors, "uint8", calibration_embeddings=vectors)
    assert np.array_equal(again, codes)
    assert np.array_equal(jinabert.quantize_embeddings(vectors[2], "uint8", ranges), codes[2])


def test_similarity(cpu) -> None:
    vectors = cpu.encode(["A blue cat", "A cat that is blue", "Stocks fell"])
    cosines = cpu.similarity(vectors, vectors)
    assert cosines.shape == (3, 3)
    assert cosines[0, 1] > cosines[0, 2]
    assert np.abs(np.diag(cosines) - 1).max() < 1e-6
    assert np.allclose(cpu.similarity_pairwise(vectors[:2], vectors[1:]), np.diag(cosines, 1))
