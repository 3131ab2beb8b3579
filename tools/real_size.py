#!/usr/bin/env python3
"""Checkpoints of the real models' sizes against the float64 reference, up to 8,192 tokens.

    pip install numpy scipy
    python3 tools/real_size.py [--device cpu] [--sizes small-en base-en base-code] [--lengths 128 2048 8192]

Makes seeded random checkpoints (tests/fixtures/tools), runs the reference in float64 and the release build of the
program on the same token ids, and prints the worst differences of hidden states and vectors.  Exit code 1 if one is
over its bound.  The reference takes minutes and some gigabytes at 8,192 tokens.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/fixtures/tools"))
import jinabert_ref  # noqa: E402
import make_fixtures  # noqa: E402
import weights  # noqa: E402

# hidden, layers, heads, vocabulary, whether it is the code graph
SIZES = {
    "small-en": (512, 4, 8, 30528, False),
    "base-en": (768, 12, 12, 30528, False),
    "base-code": (768, 12, 12, 61056, True),
}
# of hidden states and of unit vectors, in f32; the fixture of base width, of 2 layers, allows 1e-3 and 3e-5
BOUNDS = (5e-4, 5e-6)


def recipe(name: str) -> dict:
    hidden, layers, heads, vocabulary, code = SIZES[name]
    config = {
        "architectures": ["JinaBertForMaskedLM"], "model_type": "bert", "hidden_act": "gelu",
        "feed_forward_type": "geglu", "position_embedding_type": "alibi", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * hidden,
        "vocab_size": vocabulary, "type_vocab_size": 2, "max_position_embeddings": 8192, "layer_norm_eps": 1e-12,
    }
    draft = {"seed": f"real-{name}", "code": code, "gate_shift": -3.0, "qk": 1.6, "heads": [], "prefix": "",
             "buffers": False, "dtype": "F16", "shards": 1, "cfg": config}
    return make_fixtures.calibrate(draft, 64)


def embed(program: Path, model: Path, device: str, lists: list[np.ndarray], out: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Hidden states of each list of ids, and unit vectors."""
    lines = "".join(json.dumps({"ids": ids.tolist()}) + "\n" for ids in lists)
    command = [str(program), "-q", "embed", "--model", str(model), "--device", device, "--input-format", "jsonl"]
    subprocess.run([*command, "--pooling", "none", "--output", str(out)], input=lines, text=True, check=True)
    printed = subprocess.run(command, input=lines, text=True, check=True, capture_output=True).stdout
    vectors = np.array([json.loads(line)["embedding"] for line in printed.splitlines()])
    return [np.load(path) for path in sorted(out.glob("*.npy"))], vectors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--lengths", nargs="*", type=int, default=[128, 2048, 8192])
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    program = ROOT / "target/release/jinabert"
    wrong = 0
    print("| size | tokens | hidden, max abs | unit vector, max abs | 1 - cosine | reference, s |\n|---|---|---|---|---|---|")
    for name in arguments.sizes:
        with tempfile.TemporaryDirectory() as directory:
            model, out = Path(directory) / "model", Path(directory) / "hidden"
            model.mkdir()
            made = recipe(name)
            make_fixtures.regen(str(model), made)
            (model / "config.json").write_text(json.dumps(made["cfg"]))
            reference = jinabert_ref.JinaBert(*jinabert_ref.load_dir(str(model)))
            lists = [weights.ints(made["seed"], f"ids/{n}", n, 5, made["cfg"]["vocab_size"]) for n in arguments.lengths]
            hidden, vectors = embed(program, model, arguments.device, lists, out)
            for ids, found, vector in zip(lists, hidden, vectors):
                start = time.time()
                expected = reference.hidden(ids[None])[0]
                seconds = time.time() - start
                mean = expected.mean(0)
                unit = mean / np.linalg.norm(mean)
                off = np.abs(found - expected).max(), np.abs(vector - unit).max()
                distance = 1 - vector @ unit / np.linalg.norm(vector)
                wrong += not (off[0] <= BOUNDS[0] and off[1] <= BOUNDS[1])
                print(f"| {name} | {len(ids)} | {off[0]:.1e} | {off[1]:.1e} | {distance:.0e} | {seconds:.0f} |", flush=True)
    print(f"\n{wrong} over {BOUNDS[0]} or {BOUNDS[1]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
