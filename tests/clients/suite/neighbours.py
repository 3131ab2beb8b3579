"""Vectors of real texts in a Milvus, however it is reached."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import openai
from pymilvus import DataType, MilvusClient

from .checks import BASE, CONTEXT, E, close, equal

QUESTIONS = [
    "How are long documents handled?",
    "Which devices can it run on?",
    "Where are models of the hub kept?",
    "What does a test compare?",
    "How do I measure the speed of a kernel?",
]


def paragraphs() -> list[str]:
    """What the repository's documents say, a paragraph each."""
    names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/late-chunking.md"]
    texts = [(Path(CONTEXT["root"]) / name).read_text(encoding="utf-8") for name in names]
    parts = [part.strip() for text in texts for part in re.split(r"\n\s*\n", text)]
    # Two that are the same would be equally near.
    return list(dict.fromkeys(part for part in parts if len(part) > 60))


def embed(texts: list[str]) -> np.ndarray:
    client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none")
    answer = client.embeddings.create(model="any", input=texts)
    return np.array([item.embedding for item in answer.data], dtype=np.float32)


def nearest(client: MilvusClient, indexes: list[str], count: int = 5) -> None:
    """A collection of each kind of index finds what comparing all vectors finds."""
    texts = paragraphs()
    vectors, questions = embed(texts), embed(QUESTIONS)
    # The server's vectors, not any: those of the expectations among them.
    close(embed(E["texts"]), E["plain"]["vectors"])
    cosines = questions.astype(np.float64) @ vectors.T.astype(np.float64)
    order = np.argsort(-cosines, axis=1)[:, :count]
    for kind in indexes:
        name = f"texts_{kind.lower()}"
        if client.has_collection(name):
            client.drop_collection(name)
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("text", DataType.VARCHAR, max_length=65535)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=E["width"])
        index = client.prepare_index_params()
        parameters = {"HNSW": {"M": 16, "efConstruction": 200}, "IVF_FLAT": {"nlist": 4}}
        index.add_index(
            "vector", index_type=kind, metric_type="COSINE", params=parameters.get(kind, {})
        )
        client.create_collection(
            name, schema=schema, index_params=index, consistency_level="Strong"
        )
        rows = [
            {"id": number, "text": text, "vector": vector.tolist()}
            for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        equal(client.insert(name, rows)["insert_count"], len(rows), "inserted")
        client.load_collection(name)
        search = {"HNSW": {"ef": 200}, "IVF_FLAT": {"nprobe": 4}}
        found = client.search(
            name,
            questions.tolist(),
            limit=count,
            output_fields=["text"],
            search_params={"metric_type": "COSINE", "params": search.get(kind, {})},
        )
        equal([[hit["id"] for hit in hits] for hits in found], order.tolist(), f"{kind}: nearest")
        got = [[hit["distance"] for hit in hits] for hits in found]
        close(got, np.take_along_axis(cosines, order, axis=1), 1e-5)
        equal(found[0][0]["entity"]["text"], texts[order[0][0]], "text")
        client.drop_collection(name)
