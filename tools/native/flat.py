#!/usr/bin/env python3
"""Many short texts through Python in one process: memory, handles, throughput.

    cargo build --release --locked -p jinabert-python --example short_texts
    python/check --release
    python3 -m venv /tmp/flat && /tmp/flat/bin/pip install target/wheels/*.whl
    /tmp/flat/bin/python tools/native/flat.py --out flat

Texts go through `Embedder.encode`, --at-once at a time, as short_texts.c sends them through C;
vectors are looked at and dropped. Memory, files and threads are sampled into --out's .csv, and
memory into the .svg. Then Python and the library itself (benches/short_texts.rs) take turns on
fewer texts, in processes of their own, and their medians are compared. Exit code 1 if memory still
grew in the second half, if more files or threads are open at the end, if vectors change or are not
the library's, or if Python has less than --least of the throughput of Rust.
"""

import argparse
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
from short_texts import ROOT, SENTENCES, Samples, command, kit, throughput

import jinabert


def embed(embedder: jinabert.Embedder, texts: int, at_once: int) -> tuple[float, float]:
    """Seconds, and the sum of the first component of every call, as short_texts.c has it."""
    lines = SENTENCES.read_text().splitlines()
    start, total = time.monotonic(), 0.0
    for done in range(0, texts, at_once):
        end = min(done + at_once, texts)
        vectors = embedder.encode([lines[n % len(lines)] for n in range(done, end)])
        total += float(vectors[0, 0])
    return time.monotonic() - start, total


def memory(options: argparse.Namespace) -> list[str]:
    """The long run; what was wrong."""
    lines = SENTENCES.read_text().splitlines()
    samples, ended = Samples(), threading.Event()

    def sample() -> None:
        while not ended.wait(options.every):
            samples.take(os.getpid())

    with jinabert.Embedder(options.model, device=options.device) as embedder:
        expected = embedder.encode(lines)
        watch = threading.Thread(target=sample)
        watch.start()
        seconds, _ = embed(embedder, options.texts, options.at_once)
        ended.set()
        watch.join()
        change = float(np.abs(embedder.encode(lines) - expected).max())
    print(f"vectors changed by {change:g}")
    title = f"Memory of Python, {options.texts:,} short texts"
    faults = samples.told(options.texts, seconds, options.out, title)
    if change > 1e-6:
        faults.append(f"vectors changed by {change:.1e}")
    return faults


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--model", type=Path, default=ROOT / "models/jinabert-mini-en")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--at-once", type=int, default=256, help="texts a call")
    parser.add_argument("--fewer", type=int, default=50_000, help="texts of a comparison")
    parser.add_argument("--rounds", type=int, default=7, help="comparisons; 0 for none")
    parser.add_argument("--least", type=float, default=0.95)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between samples")
    parser.add_argument("--out", type=Path, default=Path("flat"), help="name of .csv, .svg")
    rust = ROOT / "target/release/examples/short_texts"
    parser.add_argument("--rust", type=Path, default=rust, help="benches/short_texts.rs")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with jinabert.Embedder(options.model, device=options.device) as embedder:
            seconds, total = embed(embedder, options.texts, options.at_once)
        print(f"{options.texts} texts, {seconds:.6f} seconds, sum {total:.6f}")
        return
    if options.rounds and not options.rust.exists():
        sys.exit(f"no `{options.rust}`: build it (see above), or --rounds 0")
    faults = memory(options)
    if options.rounds:
        in_python = [sys.executable, __file__, "--one", "--model", str(options.model)]
        in_python += ["--device", options.device, "--texts", str(options.fewer)]
        in_python += ["--at-once", str(options.at_once)]
        in_rust = command(options.rust, options, options.fewer, 1)
        faults += throughput({"Python": in_python, "Rust": in_rust}, options)
    kit.verdict(faults)


if __name__ == "__main__":
    main()
