"""pymilvus.model: Milvus's own embedding and rerank functions."""

from pymilvus.model import reranker
from pymilvus.model.dense import OpenAIEmbeddingFunction, jinaai
from pymilvus.model.dense.tei import TEIEmbeddingFunction
from pymilvus.model.reranker import jinaai as jina_reranker
from pymilvus.model.reranker.tei import TEIRerankFunction

from . import checks
from .checks import BASE, E, M, check, close, contains, equal, plain, raises, ranked

jinaai.API_URL = f"{BASE}/v1/embeddings"
jina_reranker.API_URL = f"{BASE}/v1/rerank"


def ranks(results: list[reranker.bgereranker.RerankResult], top: int) -> None:
    ranked(((one.index, one.score) for one in results), top)
    texts = [E["rerank"]["documents"][one.index] for one in results]
    equal([one.text for one in results], texts, "text")


@check("pymilvus-model", "JinaEmbeddingFunction: dim, documents and queries, before and after")
def jina() -> None:
    function = jinaai.JinaEmbeddingFunction(api_key="none")
    close(function.encode_documents(E["texts"]), plain())
    # Asked for with an empty text; from now on each request has `dimensions`.
    equal(function.dim, E["width"], "dim")
    close(function.encode_documents(E["texts"]), plain())
    close(function.encode_queries([E["query"]["text"]]), E["query"]["vectors"])
    short = jinaai.JinaEmbeddingFunction(api_key="none", dimensions=64)
    close(short(E["texts"]), E["short"]["vectors"])


@check("pymilvus-model", "JinaEmbeddingFunction(late_chunking=True), errors")
def late() -> None:
    function = jinaai.JinaEmbeddingFunction(api_key="none", late_chunking=True)
    close(function.encode_documents(E["late"]["chunks"]), E["late"]["vectors"])
    wrong = jinaai.JinaEmbeddingFunction(api_key="none", dimensions=385)
    contains(str(raises(RuntimeError, lambda: wrong(["a"]))), M["dimensions"])


@check("pymilvus-model", "JinaRerankFunction")
def jina_rerank() -> None:
    function = jina_reranker.JinaRerankFunction(api_key="none")
    ranks(function(E["rerank"]["query"], E["rerank"]["documents"], top_k=3), 3)


@check("pymilvus-model", "OpenAIEmbeddingFunction")
def openai() -> None:
    options = {"base_url": f"{BASE}/v1", "api_key": "none"}
    function = OpenAIEmbeddingFunction("text-embedding-3-small", dimensions=64, **options)
    close(function.encode_documents(E["texts"]), E["short"]["vectors"])
    function = OpenAIEmbeddingFunction("jinabert-mini-en", **options)
    close(function.encode_queries([E["query"]["text"]]), E["query"]["vectors"])


@check("pymilvus-model", "TEIEmbeddingFunction, which names no model")
def tei() -> None:
    function = TEIEmbeddingFunction(BASE)
    equal(function.dim, E["width"], "dim")
    close(function(E["texts"]), plain())
    contains(str(raises(RuntimeError, lambda: function([]))), M["empty"])


@check("pymilvus-model", "TEIRerankFunction")
def tei_rerank() -> None:
    # It returns five at most.
    ranks(TEIRerankFunction(BASE)(E["rerank"]["query"], E["rerank"]["documents"]), 5)


if __name__ == "__main__":
    checks.run()
