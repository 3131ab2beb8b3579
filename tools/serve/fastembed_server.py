#!/usr/bin/env python3
"""fastembed behind FastAPI: what a Python programmer writes in ten minutes, to measure against.

    pip install fastembed fastapi uvicorn
    python3 tools/serve/fastembed_server.py DIR --port 8090

DIR has `model.onnx` (input_ids and attention_mask to one pooled vector a text), `tokenizer.json`,
`config.json`, `tokenizer_config.json` and `special_tokens_map.json`.  Answers POST /v1/embeddings.
"""

import argparse
import base64
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("dir")
parser.add_argument("--port", type=int, default=8090)
parser.add_argument("--dimensions", type=int, default=384)
args = parser.parse_args()

TextEmbedding.add_custom_model(
    model="custom",
    pooling=PoolingType.DISABLED,
    normalization=True,
    sources=ModelSource(hf="custom"),
    dim=args.dimensions,
    model_file="model.onnx",
)
model = TextEmbedding("custom", specific_model_path=args.dir)
app = FastAPI()


# Not async: FastAPI runs it on a thread, so that requests do not wait for each other's parsing.
@app.post("/v1/embeddings")
def embeddings(request: dict[str, Any]) -> dict[str, Any]:
    texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
    vectors = model.embed(texts, batch_size=request.get("batch_size", 32))
    if request.get("encoding_format") == "base64":
        written = [base64.b64encode(v.astype(np.float32).tobytes()).decode() for v in vectors]
    else:
        written = [vector.tolist() for vector in vectors]
    data = [{"object": "embedding", "index": n, "embedding": v} for n, v in enumerate(written)]
    return {"object": "list", "model": "custom", "data": data}


uvicorn.run(app, port=args.port, log_level="warning")
