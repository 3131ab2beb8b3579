"""Vector stores that embed by themselves, or hold what a client embedded."""

import os
import tempfile

import chromadb
import lancedb
import openai
import pyarrow
from chromadb.utils.embedding_functions import (
    HuggingFaceEmbeddingServer,
    JinaEmbeddingFunction,
    OpenAIEmbeddingFunction,
)
from lancedb.embeddings import get_registry, jinaai
from lancedb.pydantic import LanceModel, Vector
from lancedb.rerankers import JinaReranker
from lancedb.rerankers import jinaai as lance_reranker
from qdrant_client import QdrantClient, models

from . import checks
from .checks import BASE, KEY, KEYED, E, M, check, close, contains, nearest, plain, raises, ranked

jinaai.API_URL = f"{BASE}/v1/embeddings"
lance_reranker.API_URL = f"{BASE}/v1/rerank"
# LanceDB takes keys from here alone, for it writes the arguments into its tables.
os.environ["OPENAI_API_KEY"] = os.environ["JINA_API_KEY"] = "none"


@check("chromadb", "OpenAIEmbeddingFunction, query of a collection; nearest as by NumPy")
def chroma_openai() -> None:
    function = OpenAIEmbeddingFunction(api_key="none", api_base=f"{BASE}/v1", model_name="any")
    close(function(E["texts"]), plain())
    space = chromadb.EphemeralClient().create_collection(
        "texts", embedding_function=function, metadata={"hnsw:space": "cosine"}
    )
    space.add(ids=[str(n) for n in range(len(E["texts"]))], documents=E["texts"])
    found = space.query(query_texts=[E["query"]["text"]], n_results=3)
    distances = zip(found["ids"][0], found["distances"][0], strict=True)
    nearest([(int(name), 1 - distance) for name, distance in distances])


@check("chromadb", "JinaEmbeddingFunction with all its options")
def chroma_jina() -> None:
    def function(**options: object) -> JinaEmbeddingFunction:
        function = JinaEmbeddingFunction(api_key="none", **options)
        function._api_url = f"{BASE}/v1/embeddings"
        return function

    close(function()(E["texts"]), plain())
    full = function(
        task="retrieval.passage",
        late_chunking=False,
        truncate=True,
        dimensions=64,
        embedding_type="float",
        normalized=True,
    )
    close(full(E["texts"]), E["short"]["vectors"])
    close(function(late_chunking=True)(E["late"]["chunks"]), E["late"]["vectors"])
    error = raises(RuntimeError, lambda: function(dimensions=385)(["a"]))
    contains(str(error), M["dimensions"])


@check("chromadb", "HuggingFaceEmbeddingServer, with a key")
def chroma_tei() -> None:
    close(HuggingFaceEmbeddingServer(url=f"{BASE}/embed")(E["texts"]), plain())
    keyed = HuggingFaceEmbeddingServer(url=f"{KEYED}/embed", api_key=KEY)
    close(keyed(E["texts"]), plain())


@check("qdrant-client", "QdrantClient(':memory:') with vectors by openai; nearest as by NumPy")
def qdrant() -> None:
    create = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none").embeddings.create
    embed = lambda texts: [item.embedding for item in create(model="any", input=texts).data]
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=E["width"], distance=models.Distance.COSINE)
    client.create_collection("texts", vectors_config=size)
    points = [models.PointStruct(id=n, vector=v) for n, v in enumerate(embed(E["texts"]))]
    client.upsert("texts", points)
    found = client.query_points("texts", query=embed([E["query"]["text"]])[0], limit=3)
    nearest([(point.id, point.score) for point in found.points])


@check("lancedb", "openai of its registry, search of a table; nearest as by NumPy")
def lance_openai() -> None:
    # It knows OpenAI's names only, and sends its width as `dimensions` every time.
    openai = get_registry().get("openai")
    function = openai.create(name="text-embedding-3-small", dim=384, base_url=f"{BASE}/v1")

    class Text(LanceModel):
        n: int
        text: str = function.SourceField()
        vector: Vector(384) = function.VectorField()

    with tempfile.TemporaryDirectory() as directory:
        table = lancedb.connect(directory).create_table("texts", schema=Text)
        table.add([{"n": n, "text": text} for n, text in enumerate(E["texts"])])
        close(table.to_pandas().sort_values("n")["vector"].tolist(), plain())
        found = table.search(E["query"]["text"]).metric("cosine").limit(3).to_list()
    nearest([(row["n"], 1 - row["_distance"]) for row in found])


@check("lancedb", "jina of its registry, JinaReranker")
def lance_jina() -> None:
    function = get_registry().get("jina").create(name="any")
    close(function.compute_source_embeddings(E["texts"]), plain())
    close(function.compute_query_embeddings(E["query"]["text"]), E["query"]["vectors"])
    documents = E["rerank"]["documents"]
    table = pyarrow.table({"n": list(range(len(documents))), "text": documents})
    found = JinaReranker()._rerank(table, E["rerank"]["query"]).to_pylist()
    ranked((row["n"], row["_relevance_score"]) for row in found)


if __name__ == "__main__":
    checks.run()
