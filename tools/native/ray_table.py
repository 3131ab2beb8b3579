#!/usr/bin/env python3
"""examples/ray_embed.py on a real local Ray cluster: throughput, and what kills do to a run.

    python -m venv /tmp/ray && /tmp/ray/bin/pip install --require-hashes -r python/locks/ray.txt
    /tmp/ray/bin/pip install target/wheels/*.whl
    /tmp/ray/bin/python tools/native/ray_table.py --out benches/record/software/DATE-ray.txt

A data set of Parquet files is embedded by one process without Ray, by 1, 2 and 4 workers, once more
while a worker is killed in the middle (SIGKILL, the process that wrote the newest part), and once
more while the driver is killed in the middle and started again; the last two go into Milvus, too
(Milvus Lite, a file; `--milvus URI` for a server). Every outcome is compared: the ids are those of
the input, each once, and vectors are those of the one process. Exit code 1 if one is not.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ROOT / "tools" / "serve" / "sentences.txt"
EXAMPLE = ROOT / "examples" / "ray_embed.py"
FILES = 4

# What a vector may differ by from the one process's.
BOUND = 1e-6


def make(place: Path, count: int) -> None:
    """The data set: four files of three row groups each."""
    place.mkdir()
    lines = SENTENCES.read_text().splitlines()
    rows = [(number, f"{number} {lines[number % len(lines)]}") for number in range(count)]
    for number in range(FILES):
        some = rows[number::FILES]
        table = pa.table({"id": [one for one, _ in some], "text": [text for _, text in some]})
        groups = -(-len(some) // 3)
        pq.write_table(table, place / f"texts-{number}.parquet", row_group_size=groups)


def outcome(place: Path) -> tuple[Counter[int], dict[int, np.ndarray]]:
    """How often each id is there, and its vector."""
    counted: Counter[int] = Counter()
    vectors: dict[int, np.ndarray] = {}
    for file in place.glob("*.parquet"):
        table = pq.read_table(file)
        ids = table.column("id").to_pylist()
        counted.update(ids)
        column = table.column("embedding").combine_chunks()
        rows = np.asarray(column.values).reshape(len(ids), -1)
        vectors.update(zip(ids, rows, strict=True))
    return counted, vectors


class Bench:
    def __init__(self, options: argparse.Namespace, place: Path) -> None:
        self.options, self.place = options, place
        self.truth: dict[int, np.ndarray] = {}
        self.faults: list[str] = []
        self.lines: list[str] = []
        self.first = 0.0

    def start(self, name: str, workers: int, *more: object) -> subprocess.Popen[str]:
        options = self.options
        threads = max(1, (os.cpu_count() or 1) // max(1, workers))
        command = [sys.executable, EXAMPLE, self.place / "input", self.place / name, "--json"]
        command += ["--model", options.model, "--device", options.device, "--rows", options.rows]
        command += ["--workers", workers, "--threads", threads, *more]
        words = [str(word) for word in command]
        with (self.place / f"{name}.log").open("a") as log:
            return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)

    def end(self, name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, _ = process.communicate(timeout=self.options.patience)
        if process.returncode:
            sys.exit(f"{name}: {(self.place / f'{name}.log').read_text()[-3000:]}")
        [said] = [line for line in out.splitlines() if line.startswith('{"parts"')]
        return json.loads(said)

    def parts(self, name: str) -> list[Path]:
        found = (self.place / name).glob("*.parquet")
        return sorted(found, key=lambda file: file.stat().st_mtime)

    def whole(self, name: str) -> int:
        """How many parts there are to be."""
        plan = self.place / name / "plan.json"
        return len(json.loads(plan.read_text())["parts"]) if plan.exists() else 0

    def wait_for(self, name: str, process: subprocess.Popen[str], share: float) -> list[Path]:
        """The parts, once so many of them are there."""
        end = time.monotonic() + self.options.patience
        while len(found := self.parts(name)) < max(1, share * self.whole(name)):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{name}: {(self.place / f'{name}.log').read_text()[-3000:]}")
            time.sleep(0.02)
        return found

    def check(self, name: str) -> str:
        """What is lost, double or different."""
        counted, vectors = outcome(self.place / name)
        if not self.truth:
            self.truth = vectors
        lost = self.options.texts - len(counted)
        double = sum(count - 1 for count in counted.values())
        same = [np.abs(vectors[one] - self.truth[one]).max() for one in vectors]
        worst = float(max(same, default=np.inf))
        if lost or double or worst > BOUND or set(counted) != set(range(self.options.texts)):
            self.faults.append(f"{name}: {lost} lost, {double} double, max |Δ| {worst:.1e}")
        left = [file.name for file in (self.place / name).glob(".*.parquet.*")]
        if left:
            self.faults.append(f"{name}: drafts are left: {left}")
        return f"{lost} lost, {double} double, max |Δ| {worst:.0e}"

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)

    def row(self, what: str, found: dict[str, Any], told: str) -> None:
        rate = found["texts_per_second"]
        self.first = self.first or rate
        self.say(f"{what:44} {rate:9.0f} {rate / self.first:6.2f} {found['processes']:5}   {told}")

    def plain(self, workers: int) -> None:
        name = f"workers-{workers}"
        begun = time.monotonic()
        found = self.end(name, self.start(name, workers))
        whole = time.monotonic() - begun
        what = f"{workers} workers" if workers else "one process, without Ray"
        self.row(what, found, f"{self.check(name)}; {whole:.0f} s with the start of it all")

    def killed_worker(self) -> None:
        name = "killed-worker"
        process = self.start(name, 2, *self.milvus(name))
        newest = self.wait_for(name, process, 0.3)[-1]
        pid = json.loads(pq.read_schema(newest).metadata[b"jinabert"])["pid"]
        os.kill(pid, signal.SIGKILL)
        there = len(self.parts(name))
        found = self.end(name, process)
        pids = {
            json.loads(pq.read_schema(part).metadata[b"jinabert"])["pid"]
            for part in self.parts(name)
        }
        told = f"{self.check(name)}; killed at part {there}, {len(pids)} processes in all"
        self.row("2 workers, one of them killed", found, told + self.in_milvus(name))

    def killed_driver(self) -> None:
        name = "killed-driver"
        process = self.start(name, 2, *self.milvus(name))
        self.wait_for(name, process, 0.4)
        process.kill()
        process.wait()
        time.sleep(self.options.pause)  # workers that outlive the driver would go on
        there = len(self.parts(name))
        if there >= self.whole(name):
            self.faults.append(f"{name}: killed too late to tell anything")
        found = self.end(name, self.start(name, 2, *self.milvus(name)))
        told = f"{self.check(name)}; {there} parts were there, {found['parts']} were made then"
        self.row("2 workers, the driver killed, run again", found, told + self.in_milvus(name))

    def milvus(self, name: str) -> list[object]:
        if self.options.milvus == "none":
            return []
        uri = self.options.milvus or self.place / f"{name}.db"
        return ["--milvus", uri, "--collection", name.replace("-", "_")]

    def in_milvus(self, name: str) -> str:
        """Compares what Milvus has."""
        if self.options.milvus == "none":
            return ""
        from pymilvus import MilvusClient

        _, uri, _, collection = self.milvus(name)
        client = MilvusClient(str(uri))
        client.load_collection(collection)
        [counted] = client.query(collection, filter="id >= 0", output_fields=["count(*)"])
        some = range(0, self.options.texts, max(1, self.options.texts // 500))
        rows = client.query(collection, ids=list(some), output_fields=["id", "embedding"])
        pairs = [np.abs(np.array(row["embedding"]) - self.truth[row["id"]]).max() for row in rows]
        worst, count = float(max(pairs, default=np.inf)), counted["count(*)"]
        if count != self.options.texts or len(rows) != len(some) or worst > BOUND:
            self.faults.append(f"{name}: Milvus has {count} rows, max |Δ| {worst:.1e}")
        client.close()
        return f"; Milvus: {count} rows, max |Δ| {worst:.0e} of {len(rows)}"

    def run(self) -> None:
        options = self.options
        make(self.place / "input", options.texts)
        import ray

        import jinabert

        say = self.say
        rows, cores = options.rows, os.cpu_count()
        say(f"examples/ray_embed.py, {options.texts} short texts in {FILES} files, parts of up to")
        say(f"{rows}; Ray {ray.__version__}, a local cluster; {cores} cores, {options.device},")
        say(f"jinabert {jinabert.__version__}. A worker has cores / workers threads, 1 at least.")
        say("texts/s: from the first part's beginning to the last one's end.")
        say()
        say(f"{'':44} {'texts/s':>9} {'ratio':>6} {'pids':>5}   outcome")
        for workers in (0, *options.workers):
            self.plain(workers)
        self.killed_worker()
        self.killed_driver()
        say()
        for fault in self.faults:
            say(f"FAULT: {fault}")
        if not self.faults:
            say("nothing lost, nothing double, vectors those of the one process")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=24_000)
    parser.add_argument("--rows", type=int, default=500, help="most texts of a part")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--model", default=str(ROOT / "models/jinabert-mini-en"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--milvus", help="a server; none for no Milvus")
    parser.add_argument("--patience", type=float, default=1200, help="seconds of one run")
    parser.add_argument("--pause", type=float, default=5, help="seconds after the driver's end")
    parser.add_argument("--out", type=Path, help="file for what is printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(options, Path(place))
        bench.run()
    if options.out:
        options.out.write_text("\n".join(bench.lines) + "\n")
    sys.exit(bool(bench.faults))


if __name__ == "__main__":
    main()
