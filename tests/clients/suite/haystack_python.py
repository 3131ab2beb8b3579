"""Haystack: its OpenAI embedders, and Jina's integration."""

from typing import Any

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.jina import JinaDocumentEmbedder, JinaTextEmbedder
from haystack_integrations.components.rankers.jina import JinaRanker

from . import checks
from .checks import BASE, E, M, check, close, contains, equal, plain, raises, ranked, usage

KEY = Secret.from_token("none")


def documents(texts: list[str]) -> list[Document]:
    return [Document(content=text, meta={"n": n}) for n, text in enumerate(texts)]


def embedded(embedder: Any, expected: list[list[float]]) -> None:
    answer = embedder.run(documents(E["texts"]))
    close([document.embedding for document in answer["documents"]], expected)
    got = {key: answer["meta"]["usage"][key] for key in usage([])}
    equal(got, usage(E["plain"]["tokens"]), "usage")


@check("jina-haystack", "JinaDocumentEmbedder, JinaTextEmbedder")
def jina() -> None:
    options = {"api_key": KEY, "base_url": f"{BASE}/v1/embeddings"}
    embedded(JinaDocumentEmbedder(progress_bar=False, batch_size=4, **options), plain())
    short = JinaDocumentEmbedder(progress_bar=False, dimensions=64, **options)
    embedded(short, E["short"]["vectors"])
    answer = JinaTextEmbedder(task="retrieval.query", **options).run(E["query"]["text"])
    close([answer["embedding"]], E["query"]["vectors"])
    equal(answer["meta"], {"model": M["model"], "usage": usage(E["query"]["tokens"])}, "meta")


@check("jina-haystack", "JinaDocumentEmbedder(late_chunking=True)")
def late() -> None:
    url = f"{BASE}/v1/embeddings"
    embedder = JinaDocumentEmbedder(KEY, base_url=url, late_chunking=True, progress_bar=False)
    answer = embedder.run(documents(E["late"]["chunks"]))
    close([document.embedding for document in answer["documents"]], E["late"]["vectors"])


@check("jina-haystack", "JinaRanker, plain and awaited")
async def ranker() -> None:
    ranker = JinaRanker(api_key=KEY, base_url=f"{BASE}/v1/rerank")
    query, texts = E["rerank"]["query"], documents(E["rerank"]["documents"])
    answer = ranker.run(query, texts)
    ranked((document.meta["n"], document.score) for document in answer["documents"])
    equal(answer["meta"], {"model": M["reranker"], "usage": usage([E["rerank"]["tokens"]])}, "meta")
    answer = await ranker.run_async(query, texts, top_k=2)
    ranked(((document.meta["n"], document.score) for document in answer["documents"]), 2)


@check("jina-haystack", "an error is a RuntimeError with the server's words")
def error() -> None:
    embedder = JinaTextEmbedder(KEY, dimensions=385, base_url=f"{BASE}/v1/embeddings")
    contains(str(raises(RuntimeError, lambda: embedder.run("a"))), M["dimensions"])


@check("haystack-ai", "OpenAIDocumentEmbedder, OpenAITextEmbedder")
async def openai() -> None:
    options = {"api_key": KEY, "api_base_url": f"{BASE}/v1"}
    embedded(OpenAIDocumentEmbedder(progress_bar=False, **options), plain())
    embedder = OpenAITextEmbedder(dimensions=64, **options)
    answers = [await embedder.run_async(text) for text in E["texts"]]
    close([answer["embedding"] for answer in answers], E["short"]["vectors"])


if __name__ == "__main__":
    checks.run()
