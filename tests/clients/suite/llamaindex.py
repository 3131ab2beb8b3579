"""LlamaIndex: Jina's, OpenAI's and text-embeddings-inference's integrations."""

from typing import Any

import numpy as np
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.embeddings.jinaai import JinaEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference as TeiRerank

from . import checks
from .checks import BASE, KEY, KEYED, E, M, check, close, contains, equal, plain, raises, ranked


def jina(**options: Any) -> JinaEmbedding:
    client = JinaEmbedding(api_key="none", **options)
    client._api.api_url = f"{BASE}/v1/embeddings"
    return client


def nodes() -> list[NodeWithScore]:
    texts = E["rerank"]["documents"]
    return [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(texts)]


def order(found: list[NodeWithScore]) -> list[tuple[int, float]]:
    return [(int(node.node_id), node.score) for node in found]


@check("llama-index-embeddings-jinaai", "JinaEmbedding: texts and query, dimensions, task")
async def jina_floats() -> None:
    close(jina().get_text_embedding_batch(E["texts"]), plain())
    close([jina().get_query_embedding(E["query"]["text"])], E["query"]["vectors"])
    short = jina(dimensions=64, task="retrieval.passage")
    close(short.get_text_embedding_batch(E["texts"]), E["short"]["vectors"])
    close(await jina().aget_text_embedding_batch(E["texts"]), plain())


@check("llama-index-embeddings-jinaai", "JinaEmbedding, binary and ubinary: the signs")
def jina_bits() -> None:
    for kind in ("binary", "ubinary"):
        client = jina(encoding_documents=kind, encoding_queries=kind)
        bits = client.get_text_embedding_batch(E["texts"])
        signs = np.unpackbits(np.array(E["ubinary"]["vectors"], dtype=np.uint8), axis=1)
        equal(np.array(bits).tolist(), signs.tolist(), kind)
        equal(bits, [[int(x > 0) for x in vector] for vector in plain()], "signs")


@check("llama-index-embeddings-jinaai", "JinaEmbedding(late_chunking=True)")
def jina_late() -> None:
    got = jina(late_chunking=True).get_text_embedding_batch(E["late"]["chunks"])
    close(got, E["late"]["vectors"])


@check("llama-index-embeddings-jinaai", "an error is a RuntimeError with the server's words")
def jina_error() -> None:
    wrong = jina(dimensions=385)
    error = raises(RuntimeError, lambda: wrong.get_text_embedding("a"))
    contains(str(error), M["dimensions"])


@check("llama-index-embeddings-openai", "OpenAIEmbedding")
def openai() -> None:
    client = OpenAIEmbedding(api_base=f"{BASE}/v1", api_key="none", embed_batch_size=4)
    close(client.get_text_embedding_batch(E["texts"]), plain())


@check("llama-index-embeddings-openai-like", "OpenAILikeEmbedding, plain and awaited")
async def openai_like() -> None:
    client = OpenAILikeEmbedding(model_name="any", api_base=f"{KEYED}/v1", api_key=KEY)
    close(client.get_text_embedding_batch(E["texts"]), plain())
    close([await client.aget_query_embedding(E["query"]["text"])], E["query"]["vectors"])


@check("llama-index-embeddings-text-embeddings-inference", "TextEmbeddingsInference, with a key")
async def tei() -> None:
    client = TextEmbeddingsInference(
        model_name="any",
        base_url=KEYED,
        auth_token=KEY,
        text_instruction=" ",
        query_instruction=" ",
    )
    close(client.get_text_embedding_batch(E["texts"]), plain())
    close([await client.aget_query_embedding(E["query"]["text"])], E["query"]["vectors"])


@check("llama-index-postprocessor-jinaai-rerank", "JinaRerank")
def jina_rerank() -> None:
    client = JinaRerank(base_url=f"{BASE}/v1", api_key="none", top_n=3)
    ranked(order(client.postprocess_nodes(nodes(), query_str=E["rerank"]["query"])), 3)


@check("llama-index-postprocessor-tei-rerank", "TextEmbeddingInference, key without `Bearer`")
def tei_rerank() -> None:
    client = TeiRerank(base_url=KEYED, auth_token=KEY, top_n=3)
    ranked(order(client.postprocess_nodes(nodes(), query_str=E["rerank"]["query"])), 3)


if __name__ == "__main__":
    checks.run()
