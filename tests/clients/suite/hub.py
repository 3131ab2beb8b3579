"""huggingface_hub's InferenceClient, which speaks to text-embeddings-inference."""

import numpy as np
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from . import checks
from .checks import BASE, KEY, KEYED, E, M, check, close, contains, equal, plain, raises


def rejection(error: HfHubHTTPError) -> dict[str, str]:
    """What the server says in its answer."""
    return error.response.json()


@check("huggingface-hub", "feature_extraction at /embed: one text, and a list")
def extraction() -> None:
    client = InferenceClient(base_url=f"{BASE}/embed")
    vectors = client.feature_extraction(E["texts"])
    equal(vectors.dtype, np.dtype("float32"), "kind")
    close(vectors, plain())
    # One text is a list of one, as text-embeddings-inference has it.
    close(client.feature_extraction(E["query"]["text"]), E["query"]["vectors"])


@check("huggingface-hub", "feature_extraction at the server's root")
def root() -> None:
    close(InferenceClient(base_url=BASE).feature_extraction(E["texts"]), plain())


@check("huggingface-hub", "feature_extraction: normalize, dimensions, truncate, direction")
def parameters() -> None:
    client = InferenceClient(base_url=f"{BASE}/embed")
    raw = client.feature_extraction(E["texts"], normalize=False)
    close(raw, E["raw"]["vectors"], 1e-5)
    close(client.feature_extraction(E["texts"], dimensions=64), E["short"]["vectors"])
    both = client.feature_extraction(E["texts"], truncate=True, truncation_direction="left")
    close(both, plain())


@check("huggingface-hub", "AsyncInferenceClient.feature_extraction, with a key")
async def awaited() -> None:
    client = AsyncInferenceClient(base_url=f"{KEYED}/embed", api_key=KEY)
    close(await client.feature_extraction(E["texts"]), plain())


@check("huggingface-hub", "sentence_similarity")
def similarity() -> None:
    query, texts = E["query"]["text"], E["texts"]
    expected = np.array(plain()) @ np.array(E["query"]["vectors"][0])
    for url in (BASE, f"{BASE}/similarity"):
        close(InferenceClient(base_url=url).sentence_similarity(query, texts), expected)


@check("huggingface-hub", "errors become HfHubHTTPError with the server's words")
def errors() -> None:
    client = InferenceClient(base_url=f"{BASE}/embed")
    error = raises(HfHubHTTPError, lambda: client.feature_extraction([]))
    equal(rejection(error)["error_type"], M["empty_kind"], "error_type")
    contains(str(error), M["empty_tei"])
    wrong = lambda: client.feature_extraction("a", prompt_name="query")
    error = raises(HfHubHTTPError, wrong)
    equal(rejection(error)["error_type"], M["validation"], "error_type")
    contains(rejection(error)["error"], M["prompt"])


if __name__ == "__main__":
    checks.run()
