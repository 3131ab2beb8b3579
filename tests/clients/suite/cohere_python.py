"""The cohere package for Python: ClientV2.rerank."""

import cohere

from . import checks
from .checks import BASE, E, M, check, contains, equal, raises, ranked

CLIENT = cohere.ClientV2(api_key="none", base_url=BASE)
RERANK = E["rerank"]


def rerank(**options: object) -> cohere.V2RerankResponse:
    query, documents = RERANK["query"], RERANK["documents"]
    return CLIENT.rerank(model="rerank-v3.5", query=query, documents=documents, **options)


@check("cohere", "ClientV2.rerank")
def everything() -> None:
    ranked((result.index, result.relevance_score) for result in rerank().results)


@check("cohere", "ClientV2.rerank, top_n")
def best() -> None:
    ranked(((result.index, result.relevance_score) for result in rerank(top_n=2).results), 2)


@check("cohere", "AsyncClientV2.rerank")
async def awaited() -> None:
    client = cohere.AsyncClientV2(api_key="none", base_url=BASE)
    answer = await client.rerank(model="any", query=RERANK["query"], documents=RERANK["documents"])
    ranked((result.index, result.relevance_score) for result in answer.results)


@check("cohere", "errors become exceptions with a body")
def errors() -> None:
    wrong = lambda: CLIENT.rerank(model="any", query="a", documents=[])
    error = raises(cohere.BadRequestError, wrong)
    contains(error.body["message"], M["empty_documents"])
    equal(error.body["error"]["type"], M["bad_request"], "type")


if __name__ == "__main__":
    checks.run()
