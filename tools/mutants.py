#!/usr/bin/env python3
"""Introduces plausible bugs into the shaders, one at a time, and shows which tests fail.

Needs the drivers that ./check installs (source tools/setup.sh and call need_test_drivers), or a GPU, and no Python
package.  Every mutant is a copy of shaders/ with one change, read through JINABERT_SHADERS, so nothing is rebuilt.
Exit code 1 if a mutant survives.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# name, file, text, replacement
MUTANTS = [
    ("ALiBi sign positive", "lib/alibi.wgsl", "return -slope", "return slope"),
    ("ALiBi one-sided", "lib/alibi.wgsl", "f32(max(i, j) - min(i, j))", "f32(max(i, j) - j)"),
    ("ALiBi of the next head", "any_width/attention.wgsl", "slopes[head];", "slopes[(head + 1u) % params.heads];"),
    ("ALiBi scaled with q", "any_width/attention.wgsl", "score + alibi(slope, i, j)", "score + alibi(slope, i, j) * params.scale"),
    ("no 1/sqrt(E)", "any_width/attention.wgsl", "load4(q[query + e]) * params.scale", "load4(q[query + e])"),
    ("no rescale of O", "any_width/attention.wgsl", "o[e] *= keep;", "o[e] *= 1.0;"),
    ("no rescale of L", "any_width/attention.wgsl", "sum *= keep;", "sum *= 1.0;"),
    ("keys past the end count", "any_width/attention.wgsl", "alibi(slope, i, j), j < tile_end)", "alibi(slope, i, j), true)"),
    ("last key left out", "any_width/attention.wgsl", "j < tile_end);", "j + 1u < tile_end || tile_end - start == 1u);"),
    ("neighbour's keys", "any_width/attention.wgsl", "var j0 = start + tile * TILE;", "var j0 = max(start, 1u) - 1u + tile * TILE;"),
    ("query-only tokens are keys", "any_width/attention.wgsl", "let keys_end = tiles[entry].w;", "let keys_end = tiles[entry].y;"),
    ("tiled: query-only tokens are keys", "attention.wgsl", "let keys_end = tiles[entry].w;", "let keys_end = tiles[entry].y;"),
    ("queries behind the keys begin there", "lib/skip_bound.wgsl", "min(place, count - 1u)", "place"),
    ("tiled: ALiBi of the next head", "attention.wgsl", "slopes[head];", "slopes[(head + 1u) % params.heads];"),
    ("tiled: no rescale of O", "attention.wgsl", "Row8(o{4*h+x}.l * keep{h}[{x}],", "Row8(o{4*h+x}.l,"),
    ("tiled: keys past the end count", "attention.wgsl", "j < vec2(tile_end)", "j < vec2(tile_end + 1u)"),
    ("last tile left out", "lib/skip_bound.wgsl", "SkipBound(0u, at.count)", "SkipBound(0u, max(at.count, at.own + 2u) - 1u)"),
    ("norms ignored", "lib/skip_bound.wgsl", "found.first - 1u) * TILE + 1u;\n        if qmax * kappa",
     "found.first - 1u) * TILE + 1u;\n        if 0.0 * kappa"),
    ("skipping though switched off", "lib/skip_bound.wgsl", "params.skip > 0.0", "params.skip > 9.0"),
    ("texture: ALiBi sign positive", "texture/attention.wgsl", "-= slope * abs", "+= slope * abs"),
    ("texture: query-only tokens are keys", "texture/attention.wgsl", "let keys_end = tiles[entry].w;", "let keys_end = tiles[entry].y;"),
    ("texture: keys past the end count", "texture/attention.wgsl", "keys{n} < vec4(tile_end)", "keys{n} < vec4(tile_end + 1u)"),
    ("texture: no rescale of O", "texture/attention.wgsl", "o{m}_{e} *= keep{m};", "o{m}_{e} *= 1.0;"),
    ("texture: no page", "lib/page.wgsl", "row / 8192u * width", "row / 8192u"),
    ("texture: every element from lane 0", "lib/share_many.wgsl", "{i%S}u", "0u"),
    ("texture: halves swapped", "texture/linear_geglu.wgsl", "activation(a{m}_{2*n}) * a{m}_{2*n+1}",
     "activation(a{m}_{2*n+1}) * a{m}_{2*n}"),
    ("texture: no residual", "texture/linear.wgsl", "value += textureLoad(r, to, 0);", "value += 0.0 * textureLoad(r, to, 0);"),
    ("GELU by tanh", "lib/gelu.wgsl", "return max(x, vec4(0.0)) - 0.5 * size * erfc4(size * 0.70710678);",
     "return 0.5 * x * (1.0 + tanh(0.7978845608 * (x + 0.044715 * x * x * x)));"),
    ("halves swapped", "linear_geglu.wgsl", "activation(gate) * up", "activation(up) * gate"),
    ("eps 1e-5 in embed", "embed.wgsl", "&z, params.eps", "&z, 1e-5"),
    ("eps 1e-5 in layer_norm", "layer_norm.wgsl", "&z, params.eps", "&z, 1e-5"),
    ("unbiased variance", "lib/row_norm.wgsl", "square) / f32(D)", "square) / f32(D - 1u)"),
    ("variance in one pass", "lib/row_norm.wgsl", "let d = (*z)[n] - mean;\n            square += dot(d, d);",
     "square += dot((*z)[n], (*z)[n]) - 4.0 * mean * mean;"),
    ("no residual in layer_norm", "layer_norm.wgsl", "z[n] += r[row * D4 + i];", "z[n] += 0.0 * r[row * D4 + i];"),
    ("token types ignored", "embed.wgsl", "type_ids[t] * D4", "0u * type_ids[t] * D4"),
    ("rows of the first part", "embed.wgsl", "(id - params.first) * D4", "min(id, params.rows - 1u) * D4"),
    ("no bias", "linear.wgsl", "sum + bias[col / 4u]", "sum + 0.0 * bias[col / 4u]"),
    ("no residual", "linear.wgsl", "value += r[to];", "value += 0.0 * r[to];"),
    ("last K tile not cut", "lib/product_tiled.wgsl", "min(BK4, max(k4 - k0, skip) - skip)", "BK4"),
    ("last slice left out", "lib/slices_many.wgsl", "at < WG * AT_A_TIME", "at < (WG - LX * LY) * AT_A_TIME"),
    ("f16: pairs swapped", "lib/elem_f16.wgsl", "unpack2x16float(stored.x), unpack2x16float(stored.y)",
     "unpack2x16float(stored.y), unpack2x16float(stored.x)"),
    ("edge row lost", "lib/product_tiled.wgsl", "params.rows - 1u", "max(params.rows, 2u) - 2u"),
    ("norm instead of its square root", "key_norm.wgsl", "sqrt(most)", "most"),
    ("grid not folded", "layer_norm.wgsl", "let row = wg.y * grid.x + wg.x;", "let row = wg.x + 0u * grid.x;"),
    ("pool divides by all tokens", "pool.wgsl", "f32(end - start)", "f32(spans[params.spans - 1u].y)"),
    ("pool without [CLS]", "pool.wgsl", "var block = start; block < end",
     "var block = min(start + 1u, end - 1u); block < end"),
    ("norm before the cut", "pool.wgsl", "square += dot(cut, cut);", "square += dot(e[n], e[n]);"),
]

FIXTURES = ["tiny-12heads", "tiny-geglu-4h"]


def binary(test: str) -> str:
    """Executable of a test of the library, built if it is not up to date."""
    command = ["cargo", "test", "--all-features", "--test", test, "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    # The messages are about every crate, so the target's name decides.
    built = [message for message in map(json.loads, lines) if message.get("target", {}).get("name") == test]
    return [message["executable"] for message in built if message.get("executable")][-1]


def failures(path: str, filters: list[str], shaders: Path) -> list[str]:
    environment = os.environ | {"JINABERT_SHADERS": str(shaders)}
    names = []
    for name in filters:
        result = subprocess.run([path, name], env=environment, capture_output=True, text=True)
        names += re.findall(r"^test (\S.*?)\s+\.\.\. FAILED", result.stdout, re.M)
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="vulkan-llvmpipe", help="as in test names (default: %(default)s)")
    parser.add_argument("only", nargs="*", help="run only mutants whose name contains one of these")
    arguments = parser.parse_args()
    kernels, model = binary("kernels"), binary("model")
    survived = 0
    print("| mutant | file | kernel trials that fail | fixtures that fail |\n|---|---|---|---|")
    for name, file, old, new in MUTANTS:
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as directory:
            shaders = Path(directory) / "shaders"
            shutil.copytree(ROOT / "shaders", shaders)
            text = (shaders / file).read_text()
            assert text.count(old) == 1, f"{name}: {text.count(old)} places"
            (shaders / file).write_text(text.replace(old, new))
            words = [Path(file).stem] if "lib/" not in file else ["attention", "linear", "layer_norm", "embed", "pool"]
            by_kernel = failures(kernels, [f"{arguments.device}/{word}" for word in words], shaders)
            by_model = failures(model, [f"{arguments.device}/{fixture}" for fixture in FIXTURES], shaders)
        short = [trial.removeprefix(f"{arguments.device}/") for trial in by_kernel + by_model]
        kernel, fixture = short[: len(by_kernel)], short[len(by_kernel):]
        survived += not short
        print(f"| {name} | {file} | {', '.join(kernel) or '–'} | {', '.join(fixture) or '–'} |", flush=True)
    print(f"\n{survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main())
