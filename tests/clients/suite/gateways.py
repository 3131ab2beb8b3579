"""litellm, and infinity's own client."""

from typing import Any

import infinity_client
import litellm
from infinity_client.api.default import embeddings as infinity_embeddings
from infinity_client.api.default import rerank as infinity_rerank
from infinity_client.models import OpenAIEmbeddingInputText, RerankInput

from . import checks
from .checks import BASE, E, M, check, close, contains, equal, plain, raises, ranked, usage

V1 = f"{BASE}/v1"


def embed(model: str, base: str, **options: Any) -> list[list[float]]:
    options = {"input": E["texts"], "api_key": "none", **options}
    answer = litellm.embedding(model=model, api_base=base, **options)
    return [item["embedding"] for item in answer.data]


@check("litellm", "embedding: openai/, which sends `encoding_format: null`")
def openai() -> None:
    close(embed("openai/any", V1), plain())
    close(embed("openai/text-embedding-3-small", V1, dimensions=64), E["short"]["vectors"])
    answer = litellm.embedding(model="openai/any", input=E["texts"], api_base=V1, api_key="none")
    got = {key: answer.usage[key] for key in usage([])}
    equal(got, usage(E["plain"]["tokens"]), "usage")


@check("litellm", "aembedding: openai/")
async def awaited() -> None:
    answer = await litellm.aembedding(
        model="openai/any", input=E["texts"], api_base=V1, api_key="none"
    )
    close([item["embedding"] for item in answer.data], plain())


@check("litellm", "embedding: jina_ai/")
def jina() -> None:
    close(embed("jina_ai/jina-embeddings-v2-base-en", V1), plain())


@check("litellm", "embedding: hosted_vllm/")
def vllm() -> None:
    close(embed("hosted_vllm/any", V1), plain())


@check("litellm", "embedding: infinity/")
def infinity() -> None:
    close(embed("infinity/any", f"{BASE}/embeddings"), plain())


@check("litellm", "embedding: huggingface/")
def huggingface() -> None:
    # Without `input_type` it asks the hub what the model is for.
    kind = {"input_type": "feature-extraction"}
    close(embed("huggingface/any/model", f"{BASE}/embed", **kind), plain())


@check("litellm", "errors become OpenAI's exceptions with the server's words")
def errors() -> None:
    wrong = lambda: embed("openai/text-embedding-3-small", V1, dimensions=385)
    contains(str(raises(litellm.BadRequestError, wrong)), M["dimensions"])


def rerank(model: str, base: str, top: int | None = 3) -> None:
    query, documents = E["rerank"]["query"], E["rerank"]["documents"]
    options: dict[str, Any] = {"query": query, "documents": documents, "top_n": top}
    answer = litellm.rerank(model=model, api_base=base, api_key="none", **options)
    ranked(((one["index"], one["relevance_score"]) for one in answer.results), top)
    for one in answer.results:
        if "document" in one:
            equal(one["document"]["text"], documents[one["index"]], "document")


@check("litellm", "rerank: jina_ai/")
def jina_rerank() -> None:
    rerank("jina_ai/jina-reranker-v1-tiny-en", V1)


@check("litellm", "rerank: cohere/")
def cohere_rerank() -> None:
    rerank("cohere/rerank-v3.5", f"{BASE}/v2/rerank")


@check("litellm", "rerank: huggingface/")
def huggingface_rerank() -> None:
    rerank("huggingface/any", BASE)


@check("litellm", "rerank: infinity/")
def infinity_reranker() -> None:
    rerank("infinity/any", BASE)


@check("litellm", "rerank: hosted_vllm/")
def vllm_rerank() -> None:
    rerank("hosted_vllm/any", V1)


CLIENT = infinity_client.Client(base_url=BASE)


@check("infinity-client", "embeddings, `dimensions: 0`")
def own_embeddings() -> None:
    body = OpenAIEmbeddingInputText(input_=E["texts"], model="any")
    answer = infinity_embeddings.sync(client=CLIENT, body=body)
    close([item.embedding for item in answer.data], plain())
    equal(answer.usage.total_tokens, sum(E["plain"]["tokens"]), "usage")


@check("infinity-client", "rerank, raw_scores, return_documents")
def own_rerank() -> None:
    query, documents = E["rerank"]["query"], E["rerank"]["documents"]
    body = RerankInput(query=query, documents=documents, top_n=3)
    answer = infinity_rerank.sync(client=CLIENT, body=body)
    ranked(((one.index, one.relevance_score) for one in answer.results), 3)
    body = RerankInput(query=query, documents=documents, raw_scores=True, return_documents=True)
    answer = infinity_rerank.sync(client=CLIENT, body=body)
    ranked(((one.index, one.relevance_score) for one in answer.results), raw=True)
    texts = [documents[one.index] for one in answer.results]
    equal([one.document for one in answer.results], texts, "document")


if __name__ == "__main__":
    checks.run()
