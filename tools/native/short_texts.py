#!/usr/bin/env python3
"""Many short texts through the C interface in one process: memory, handles, throughput.

Builds the C library as a release into --prefix and two programs that do the same, short_texts.c
and benches/short_texts.rs.  First the one in C embeds --texts texts in --turns turns, each with a
model of its own; its memory, files and threads go by the half second into --out's .csv, and its
memory into the .svg.  Then both take turns on fewer texts, one model each, and their medians are
compared.  Exit code 1 if memory still grew in the second half, if files or threads are left over,
if the two give different vectors, or if C has less than --least of the throughput of Rust.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/serve"))
import kit  # noqa: E402
import plot  # noqa: E402

# Growth of memory in the second half, as a share of its median, that counts as flat.
FLAT = 0.05

SENTENCES = ROOT / "tools/serve/sentences.txt"
SAID = re.compile(r"(\d+) texts, ([\d.]+) seconds, sum (-?[\d.]+)")


def build(prefix: Path, profile: str) -> tuple[Path, Path]:
    """The programs in C and in Rust."""
    subprocess.run([ROOT / "packaging/install-capi", prefix, "--profile", profile], check=True)
    in_c = prefix / "short_texts"
    source = ROOT / "tools/native/short_texts.c"
    library = prefix / "lib"
    flags = ["-O2", "-std=c11", "-D_POSIX_C_SOURCE=200809L", f"-I{prefix / 'include'}"]
    link = [f"-L{library}", "-ljinabert", f"-Wl,-rpath,{library}"]
    subprocess.run(["cc", *flags, source, *link, "-o", in_c], check=True)
    # The library without features, as in the C library.
    command = ["cargo", "bench", "-p", "jinabert", "--locked", "--profile", profile]
    command += ["--bench", "short_texts", "--no-run"]
    command += ["--message-format", "json-render-diagnostics"]
    told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in told.splitlines()]
    [in_rust] = [
        message["executable"]
        for message in messages
        if message.get("executable") and message["target"]["name"] == "short_texts"
    ]
    return in_c, Path(in_rust)


def command(program: Path, options: argparse.Namespace, texts: int, turns: int) -> list[str]:
    numbers = [texts, options.at_once, turns]
    return [str(x) for x in (program, options.model, options.device, SENTENCES, *numbers)]


class Samples:
    """Memory, files and threads of a process."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.rows: list[tuple[float, int, int, int]] = []

    def take(self, pid: int) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            files = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:  # it has just ended
            return
        found = {key: re.search(rf"{key}:\s+(\d+)", status) for key in ("VmRSS", "Threads")}
        if all(found.values()):
            rss, threads = (int(match[1]) for match in found.values() if match)
            self.rows.append((time.monotonic() - self.start, rss * 1024, files, threads))

    def grown(self) -> float:
        """Growth of memory over the second half by least squares, as a share of its median."""
        half = self.rows[len(self.rows) // 2 :]
        x = statistics.fmean(row[0] for row in half)
        y = statistics.fmean(row[1] for row in half)
        above = sum((row[0] - x) * (row[1] - y) for row in half)
        slope = above / (sum((row[0] - x) ** 2 for row in half) or 1.0)
        return slope * (half[-1][0] - half[0][0]) / statistics.median(row[1] for row in half)

    def told(self, texts: int, seconds: float, out: Path, title: str) -> list[str]:
        """Tells, and writes, what a run left behind; what was wrong."""
        rows = self.rows
        if len(rows) < 4:
            return ["too few samples to tell anything: give more --texts"]
        self.write(out, title)
        print(f"{texts} texts in {seconds:.1f} s: {texts / seconds:.0f} texts/s, {len(rows)} samples")
        mebibytes = [row[1] / 2**20 for row in rows]
        grown = self.grown()
        half = mebibytes[len(rows) // 2 :]
        print(
            f"memory: median {statistics.median(mebibytes):.1f} MiB, peak {max(mebibytes):.1f}; "
            f"second half {min(half):.1f} to {max(half):.1f}, grown by {100 * grown:+.2f} %"
        )
        faults = []
        if grown > FLAT:
            faults.append(f"memory grew by {100 * grown:.1f} % in the second half")
        # Between two models, or two calls, nothing is open: the first half saw as many.
        for name, at in (("files", 2), ("threads", 3)):
            first = max(row[at] for row in rows[: len(rows) // 2 + 1])
            second = max(row[at] for row in rows[len(rows) // 2 :])
            print(f"{name}: at most {first} in the first half, {second} in the second")
            if second > first:
                faults.append(f"{name}: {first} in the first half, {second} in the second")
        return faults

    def write(self, out: Path, title: str) -> None:
        lines = [f"{row[0]:.1f},{row[1]},{row[2]},{row[3]}\n" for row in self.rows]
        out.with_suffix(".csv").write_text("seconds,rss_bytes,files,threads\n" + "".join(lines))
        points = [(row[0], row[1] / 2**20) for row in self.rows]
        out.with_suffix(".svg").write_text(plot.plot(title, "seconds", "MiB", points))


def said(text: str) -> tuple[int, float, float]:
    match = SAID.search(text)
    if not match:
        sys.exit(f"it does not say what it did: {text!r}")
    return int(match[1]), float(match[2]), float(match[3])


def memory(program: Path, options: argparse.Namespace) -> list[str]:
    """The long run; what was wrong."""
    line = command(program, options, options.texts, options.turns)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    samples = Samples()
    while process.poll() is None:
        samples.take(process.pid)
        time.sleep(options.every)
    output = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        return [f"the program ended with {process.returncode}: {output}"]
    texts, seconds, _ = said(output)
    title = f"Memory of {texts:,} short texts through C, {options.turns} models"
    return samples.told(texts, seconds, options.out, title)


def throughput(programs: dict[str, list[str]], options: argparse.Namespace) -> list[str]:
    """Two programs, of which Rust's is the other one's measure, in turn; what was wrong."""
    other = next(name for name in programs if name != "Rust")
    rates: dict[str, list[float]] = {name: [] for name in programs}
    sums: dict[str, float] = {}
    for round_ in range(options.rounds):
        both = list(programs.items())
        for name, line in both if round_ % 2 else both[::-1]:
            ran = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
            texts, seconds, sums[name] = said(ran.stdout)
            rates[name].append(texts / seconds)
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    for name, rate in rates.items():
        told = ", ".join(f"{x:.0f}" for x in rate)
        print(f"{name}: median {medians[name]:.0f} texts/s of {told}")
    ratio = medians[other] / medians["Rust"]
    print(f"{other} has {ratio:.3f} of the throughput of Rust")
    faults = []
    if ratio < options.least:
        faults.append(f"{other} has {ratio:.3f} of the throughput of Rust, below {options.least}")
    if abs(sums[other] - sums["Rust"]) > 1e-5:
        faults.append(f"the vectors differ: their sums are {sums}")
    return faults


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--prefix", type=Path, default=ROOT / "target/native")
    parser.add_argument("--profile", default="release", help="cargo's, for both")
    parser.add_argument("--model", type=Path, default=ROOT / "models/jinabert-mini-en")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=10, help="models that are opened for them")
    parser.add_argument("--at-once", type=int, default=256, help="texts a call")
    parser.add_argument("--fewer", type=int, default=50_000, help="texts of a comparison")
    parser.add_argument("--rounds", type=int, default=7, help="comparisons; 0 for none")
    parser.add_argument("--least", type=float, default=0.95)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between samples")
    parser.add_argument("--out", type=Path, default=Path("short_texts"), help="name of .csv, .svg")
    options = parser.parse_args()
    in_c, in_rust = build(options.prefix.resolve(), options.profile)
    faults = memory(in_c, options)
    if options.rounds:
        both = {"C": in_c, "Rust": in_rust}
        lines = {name: command(both[name], options, options.fewer, 1) for name in both}
        faults += throughput(lines, options)
    kit.verdict(faults)


if __name__ == "__main__":
    main()
