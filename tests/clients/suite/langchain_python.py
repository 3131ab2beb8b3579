"""LangChain: langchain-openai, langchain-community, langchain-huggingface."""

import os
from pathlib import Path

import llama_index.core

# LangChain's default counts with OpenAI's tokenizer, whose table it would fetch: this is a copy.
TABLE = Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"
os.environ["TIKTOKEN_CACHE_DIR"] = str(TABLE)

import openai  # noqa: E402
from huggingface_hub import AsyncInferenceClient, InferenceClient  # noqa: E402
from langchain_community.document_compressors import jina_rerank  # noqa: E402
from langchain_community.embeddings import jina  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_core.vectorstores import InMemoryVectorStore  # noqa: E402
from langchain_huggingface import HuggingFaceEndpointEmbeddings  # noqa: E402
from langchain_openai import OpenAIEmbeddings  # noqa: E402

from . import checks  # noqa: E402
from .checks import BASE, E, M, check, close, contains, equal, nearest, plain, raises, ranked  # noqa: E402

jina.JINA_API_URL = f"{BASE}/v1/embeddings"
jina_rerank.JINA_API_URL = f"{BASE}/v1/rerank"


def embeddings(**options: object) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(base_url=f"{BASE}/v1", api_key="none", max_retries=0, **options)


@check("langchain-openai", "OpenAIEmbeddings(check_embedding_ctx_length=False)")
def texts() -> None:
    client = embeddings(check_embedding_ctx_length=False, chunk_size=4)
    close(client.embed_documents(E["texts"]), plain())
    close([client.embed_query(E["query"]["text"])], E["query"]["vectors"])


@check("langchain-openai", "OpenAIEmbeddings, dimensions, awaited")
async def awaited() -> None:
    client = embeddings(check_embedding_ctx_length=False, dimensions=64)
    close(await client.aembed_documents(E["texts"]), E["short"]["vectors"])


@check("langchain-openai", "OpenAIEmbeddings with its default: refused, with what to set instead")
def foreign() -> None:
    client = embeddings(model="text-embedding-3-small")
    error = raises(openai.BadRequestError, lambda: client.embed_documents(E["texts"]))
    contains(error.message, M["ids"])
    equal(error.code, M["ids_code"], "code")


@check("langchain-openai", "InMemoryVectorStore.similarity_search; nearest as by NumPy")
def store() -> None:
    store = InMemoryVectorStore(embeddings(check_embedding_ctx_length=False))
    store.add_documents([Document(page_content=text) for text in E["texts"]])
    found = store.similarity_search_with_score(E["query"]["text"], k=3)
    nearest([(E["texts"].index(text.page_content), score) for text, score in found])


@check("langchain-community", "JinaEmbeddings")
def jina_embeddings() -> None:
    client = jina.JinaEmbeddings(jina_api_key="none", model_name="jina-embeddings-v2-base-en")
    close(client.embed_documents(E["texts"]), plain())
    close([client.embed_query(E["query"]["text"])], E["query"]["vectors"])
    error = raises(RuntimeError, lambda: client.embed_documents([]))
    contains(str(error), M["empty"])


@check("langchain-community", "JinaRerank: rerank, compress_documents")
def jina_reranker() -> None:
    client = jina_rerank.JinaRerank(jina_api_key="none", top_n=3)
    query, documents = E["rerank"]["query"], E["rerank"]["documents"]
    found = client.rerank(documents, query)
    ranked(((one["index"], one["relevance_score"]) for one in found), 3)
    pages = [Document(page_content=text, metadata={"n": n}) for n, text in enumerate(documents)]
    found = client.compress_documents(pages, query)
    ranked(((one.metadata["n"], one.metadata["relevance_score"]) for one in found), 3)


@check("langchain-huggingface", "HuggingFaceEndpointEmbeddings with its clients exchanged")
async def endpoint() -> None:
    # It takes no URL: the clients that it makes are replaced.
    client = HuggingFaceEndpointEmbeddings(model="any/model", huggingfacehub_api_token="none")
    client.client = InferenceClient(base_url=f"{BASE}/embed")
    client.async_client = AsyncInferenceClient(base_url=f"{BASE}/embed")
    # It asks them for its own model by name, which is no URL either.
    client.model = None
    close(client.embed_documents(E["texts"]), plain())
    close([client.embed_query(E["query"]["text"])], E["query"]["vectors"])
    close(await client.aembed_documents(E["texts"]), plain())


if __name__ == "__main__":
    checks.run()
