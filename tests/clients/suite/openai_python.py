"""The openai package for Python."""

import asyncio
import base64

import numpy as np
import openai

from . import checks
from .checks import BASE, E, M, check, close, contains, equal, plain, raises, usage

CLIENT = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0)


@check("openai", "embeddings.create, base64 by default")
def default() -> None:
    answer = CLIENT.embeddings.create(model="jinabert-mini-en", input=E["texts"])
    close([item.embedding for item in answer.data], plain())
    equal([item.index for item in answer.data], list(range(len(plain()))), "indices")
    equal(answer.model, M["model"], "model")
    equal(answer.usage.to_dict(), usage(E["plain"]["tokens"]), "usage")


@check("openai", "embeddings.create, encoding_format float and base64 bit for bit the same")
def encodings() -> None:
    create = CLIENT.embeddings.create
    floats = create(model="text-embedding-3-small", input=E["texts"], encoding_format="float")
    floats = np.array([item.embedding for item in floats.data], dtype=np.float32)
    close(floats, plain())
    coded = create(model="text-embedding-3-small", input=E["texts"], encoding_format="base64")
    coded = [np.frombuffer(base64.b64decode(item.embedding), "<f4") for item in coded.data]
    if not np.array_equal(np.array(coded), floats):
        raise AssertionError("base64 and float differ")


@check("openai", "embeddings.create, one text, empty and odd texts")
def odd() -> None:
    answer = CLIENT.embeddings.create(model="any", input=E["query"]["text"])
    close([item.embedding for item in answer.data], E["query"]["vectors"])
    answer = CLIENT.embeddings.create(model="any", input=E["odd"]["texts"])
    close([item.embedding for item in answer.data], E["odd"]["vectors"])
    equal(answer.usage.to_dict(), usage(E["odd"]["tokens"]), "usage")


@check("openai", "embeddings.create, dimensions")
def dimensions() -> None:
    answer = CLIENT.embeddings.create(model="any", input=E["texts"], dimensions=64)
    close([item.embedding for item in answer.data], E["short"]["vectors"])


@check("openai", "AsyncOpenAI: 20 requests at once")
async def at_once() -> None:
    async with openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key="none") as client:
        create = client.embeddings.create
        texts = E["texts"] * 2
        answers = await asyncio.gather(*(create(model="any", input=text) for text in texts))
    close([answer.data[0].embedding for answer in answers], plain() * 2)


@check("openai", "models.list and models.retrieve")
def models() -> None:
    listed = [(model.id, model.object, model.owned_by) for model in CLIENT.models.list()]
    names = [M["model"], M["reranker"]]
    equal(listed, [(name, "model", M["owner"]) for name in names], "models")
    equal(CLIENT.models.retrieve("jinabert-mini-en").id, M["model"], "id")
    error = raises(openai.NotFoundError, lambda: CLIENT.models.retrieve("gpt-4"))
    equal(error.code, M["no_model_code"], "code")


@check("openai", "errors become exceptions with message, type, param and code")
def errors() -> None:
    create = CLIENT.embeddings.create
    error = raises(openai.BadRequestError, lambda: create(model="any", input="a", dimensions=385))
    contains(error.message, M["dimensions"])
    equal((error.type, error.param), (M["bad_request"], M["dimensions_param"]), "type, param")
    error = raises(openai.BadRequestError, lambda: create(model="any", input=[]))
    contains(error.message, M["empty"])
    wrong = lambda: create(model="any", input="a", encoding_format="int4")
    error = raises(openai.UnprocessableEntityError, wrong)
    contains(error.message, M["encoding"])
    # The ids of "hello world" for OpenAI's models: nothing that this model's tokenizer makes.
    error = raises(openai.BadRequestError, lambda: create(model="any", input=[[15339, 1917]]))
    contains(error.message, M["ids"])
    equal(error.code, M["ids_code"], "code")


if __name__ == "__main__":
    checks.run()
