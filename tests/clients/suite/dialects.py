"""Requests as they are written, for what no client library sends or shows."""

import base64
from typing import Any

import numpy as np
import requests

from . import checks
from .checks import BASE, NARROW, E, M, check, close, contains, equal, plain, ranked, usage

QUERY, DOCUMENTS = E["rerank"]["query"], E["rerank"]["documents"]


def post(path: str, body: dict[str, Any], status: int = 200, base: str = BASE) -> Any:
    answer = requests.post(base + path, json=body, timeout=60)
    equal(answer.status_code, status, f"status ({answer.text[:200]})")
    equal(answer.headers["content-type"], "application/json", "content type")
    return answer.json()


def embed(path: str = "/v1/embeddings", **body: Any) -> list[Any]:
    return [item["embedding"] for item in post(path, {"input": E["texts"], **body})["data"]]


@check("requests", "POST /v1/embeddings and /embeddings: null is what is left out")
def nulls() -> None:
    names = ("model", "encoding_format", "dimensions", "user", "task", "late_chunking")
    for path in ("/v1/embeddings", "/embeddings"):
        close(embed(path, **dict.fromkeys(names)), plain())


@check("requests", "Jina's fields: embedding_type, normalized, dimensions, {text} items")
def jina() -> None:
    kinds = {name: embed(embedding_type=name) for name in ("binary", "ubinary", "base64")}
    equal(kinds["binary"], E["binary"]["vectors"], "binary")
    equal(kinds["ubinary"], E["ubinary"]["vectors"], "ubinary")
    decoded = [np.frombuffer(base64.b64decode(text), "<f4") for text in kinds["base64"]]
    close(decoded, plain())
    equal(embed(embedding_type=["ubinary"]), E["ubinary"]["vectors"], "list of one type")
    close(embed(normalized=False), E["raw"]["vectors"], 1e-5)
    close(embed(dimensions=64, task="retrieval.passage"), E["short"]["vectors"])
    close(embed(input=[{"text": text} for text in E["texts"]]), plain())


@check("requests", "Jina's late_chunking: one document, a vector for each chunk")
def late() -> None:
    answer = post("/v1/embeddings", {"input": E["late"]["chunks"], "late_chunking": True})
    close([item["embedding"] for item in answer["data"]], E["late"]["vectors"])
    equal(answer["usage"], usage([E["late"]["total"]]), "usage")
    for text in ("", "\u200b"):
        refused = post("/v1/embeddings", {"input": ["abc", text], "late_chunking": True}, 400)
        contains(refused["message"], M["no_chunk"])


@check("requests", "token ids of this model's tokenizer: /tokenize, then /v1/embeddings")
def ids() -> None:
    tokens = post("/tokenize", {"inputs": E["texts"]})
    equal([len(text) for text in tokens], E["plain"]["tokens"], "tokens")
    lists = [[token["id"] for token in text] for text in tokens]
    bare = post("/tokenize", {"inputs": E["texts"], "add_special_tokens": False})
    equal([[token["id"] for token in text] for text in bare], [ids[1:-1] for ids in lists], "ids")
    for text, pieces in zip(E["texts"], bare, strict=True):
        for piece in pieces:
            equal(piece["text"], text[piece["start"] : piece["stop"]], "piece")
    close(embed(input=[ids[1:-1] for ids in lists]), plain())


@check("requests", "TEI's /embed, /embed_all, /decode, /info")
def tei() -> None:
    close(post("/embed", {"inputs": E["texts"]}), plain())
    tokens = post("/embed_all", {"inputs": E["texts"]})
    equal([len(text) for text in tokens], E["plain"]["tokens"], "tokens")
    means = np.array([np.mean(text, axis=0) for text in tokens])
    close(means, E["raw"]["vectors"], 1e-5)
    lists = [[token["id"] for token in text] for text in post("/tokenize", {"inputs": ["a cat"]})]
    equal(post("/decode", {"ids": lists}), ["a cat"], "text")
    info = requests.get(f"{BASE}/info", timeout=60).json()
    equal(info["model_id"], M["model"], "model_id")
    equal(
        requests.get(f"{NARROW}/info", timeout=60).json()["max_input_length"],
        E["narrow"]["limit"],
        "max_input_length",
    )


@check("requests", "/v1/rerank, /v2/rerank in the dialects of Jina and Cohere")
def rerank() -> None:
    for path in ("/v1/rerank", "/v2/rerank"):
        body = {"query": QUERY, "documents": DOCUMENTS, "top_n": 3}
        answer = post(path, body)
        results = answer["results"]
        ranked(((one["index"], one["relevance_score"]) for one in results), 3)
        for one in results:
            equal(one["document"]["text"], DOCUMENTS[one["index"]], "document")
        equal(answer["usage"], usage([E["rerank"]["tokens"]]), "usage")
        equal(answer["model"], M["reranker"], "model")
        bare = post(path, body | {"return_documents": False})["results"]
        equal([list(one) for one in bare], [["index", "relevance_score"]] * 3, "fields")


@check("requests", "/rerank in the dialects of TEI and infinity")
def rerank_here() -> None:
    body = {"query": QUERY, "texts": DOCUMENTS}
    ranked((one["index"], one["score"]) for one in post("/rerank", body))
    raw = post("/rerank", body | {"raw_scores": True, "return_text": True})
    ranked(((one["index"], one["score"]) for one in raw), raw=True)
    equal([one["text"] for one in raw], [DOCUMENTS[one["index"]] for one in raw], "text")
    body = {"query": QUERY, "documents": DOCUMENTS}
    results = post("/rerank", body)["results"]
    ranked((one["index"], one["relevance_score"]) for one in results)


@check("requests", "/predict with a pair: the reranker's score as a class")
def predict() -> None:
    pairs = [[QUERY, document] for document in DOCUMENTS]
    got = post("/predict", {"inputs": pairs})
    close([one[0]["score"] for one in got], E["rerank"]["scores"], checks.RERANK_TOLERANCE)
    got = post("/predict", {"inputs": pairs, "raw_scores": True})
    close([one[0]["score"] for one in got], E["rerank"]["logits"], checks.RERANK_TOLERANCE)


@check("requests", "a text over the limit: cut if asked, else refused in each dialect")
def long() -> None:
    text, vectors = E["narrow"]["text"], E["narrow"]["vectors"]
    cut = post("/v1/embeddings", {"input": text, "truncate": True}, base=NARROW)
    close([item["embedding"] for item in cut["data"]], vectors)
    equal(cut["usage"], usage(E["narrow"]["tokens"]), "usage")
    close(post("/embed", {"inputs": text, "truncate": True}, base=NARROW), vectors)
    refused = post("/v1/embeddings", {"input": text}, 400, NARROW)
    equal(refused["error"]["code"], M["too_long_code"], "code")
    refused = post("/embed", {"inputs": text}, 413, NARROW)
    equal(refused["error_type"], M["too_long_kind"], "error_type")
    refused = post("/v1/embeddings", {"input": ["a"] * 21}, 413, NARROW)
    contains(refused["error"]["message"], M["batch"])


@check("requests", "TEI's headers: characters, tokens, times, the kind of device")
def headers() -> None:
    for path, body in (
        ("/embed", {"inputs": E["texts"]}),
        ("/v1/embeddings", {"input": E["texts"]}),
    ):
        got = requests.post(BASE + path, json=body, timeout=60).headers
        equal(int(got["x-compute-tokens"]), sum(E["plain"]["tokens"]), "tokens")
        equal(int(got["x-compute-characters"]), sum(len(text) for text in E["texts"]), "characters")
        equal(got["x-compute-type"], M["device"], "device")
        names = ("x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time")
        total, *parts = (int(got[name]) for name in names)
        if sum(parts) > total + 1:
            raise AssertionError(f"{parts} ms are more than {total}")


@check("requests", "an error has each dialect's fields")
def errors() -> None:
    refused = post("/v1/embeddings", {"input": "a", "dimensions": 385}, 400)
    fields = {"message": M["dimensions"], "type": M["bad_request"], "param": M["dimensions_param"]}
    equal(refused["error"], fields | {"code": None}, "error")
    equal((refused["detail"], refused["message"]), (M["dimensions"],) * 2, "detail, message")
    refused = post("/embed", {"inputs": []}, 400)
    kind, message = M["empty_kind"], M["empty_tei"]
    equal(refused, {"error": message, "error_type": kind, "message": message}, "error")
    refused = post("/rerank", {"query": "a", "texts": []}, 400)
    equal(refused["error_type"], kind, "error_type")
    refused = post("/v1/rerank", {"query": "a", "documents": ["b"]}, 404, NARROW)
    contains(refused["error"]["message"], M["no_reranker"])


if __name__ == "__main__":
    checks.run()
