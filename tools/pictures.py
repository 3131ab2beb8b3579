#!/usr/bin/env python3
"""The README's pictures, as SVG: a terminal with real output, and bars of a benchmark record.

    tools/pictures.py                    both, into docs/; runs target/release/jinabert, or $JINABERT
    tools/pictures.py --only performance

Needs Python 3.9 without packages.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benches/record/software/2026-11-24-tiers.txt"

COMMANDS = [
    'jinabert similarity "How do I reset my password?" "Recover access to your account" "Bake the bread"',
    'jinabert embed "A blue cat" "A cat that is blue" --dimensions 4',
    'jinabert embed "Paris is in France. Berlin is not." --late-chunking --chunk sentences:1 --dimensions 2',
]
COLUMNS, ROW, LETTER = 116, 19, 8.15

STYLE = """
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; stroke: #d9dde3; }
  text { fill: #1b1f24; font: 13.5px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
  .label { font: 13px system-ui, sans-serif; }
  .quiet { fill: #5c6570; }
  .title { font: 600 16px system-ui, sans-serif; }
  .prompt { fill: #3b6fb6; }
  .ours { fill: #3b6fb6; }
  .peer { fill: #b4bcc6; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #14171b; stroke: #333a43; }
    text { fill: #e6e9ed; }
    .quiet { fill: #9aa4b0; }
    .prompt, .ours { fill: #7fb0f5; }
    .peer { fill: #59626d; }
  }
"""


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )


def wrapped(line: str, first: int) -> list[str]:
    """A line in rows of COLUMNS, the first with `first` columns already taken."""
    rows, room = [], COLUMNS - first
    while len(line) > room:
        rows.append(line[:room])
        line, room = line[room:], COLUMNS
    return [*rows, line]


def terminal(jinabert: str) -> str:
    rows: list[tuple[str, str]] = []  # class of the first two columns, text
    for command in COMMANDS:
        rows += [("", "")] if rows else []
        run = re.sub(r"\bjinabert\b", f"{shlex.quote(jinabert)} -q", command, count=1)
        output = subprocess.run(["bash", "-c", run], check=True, capture_output=True, text=True, cwd=ROOT).stdout
        shown = wrapped(command, 2)
        rows += [("prompt", "$ " + shown[0]), *(("", row) for row in shown[1:])]
        rows += [("quiet", row) for line in output.splitlines() for row in wrapped(line, 0)]
    height = 28 + ROW * len(rows)
    parts = []
    for n, (kind, row) in enumerate(rows):
        y = 28 + ROW * n
        text = html.escape(row)
        if kind == "prompt":
            text = f'<tspan class="prompt">$</tspan>{html.escape(row[1:])}'
        quiet = ' class="quiet"' if kind == "quiet" else ""
        parts.append(f'<text{quiet} x="16" y="{y}" xml:space="preserve">{text}</text>')
    return svg(int(32 + COLUMNS * LETTER), height, "jinabert in a terminal", parts)


SHAPES = {"W1": "1 × 128", "W2": "32 × 128", "W3": "64 × 16…512", "W4": "1 × 2,048", "W5": "1 × 8,192"}
LINE = re.compile(r"(W\d)  (.+?)  +([\d.]+) ")


def performance() -> str:
    """Tokens a second on the CPU, beside ONNX Runtime."""
    rates: dict[str, dict[str, float]] = {}
    for workload, engine, rate in LINE.findall(RECORD.read_text()):
        if engine.startswith("ONNX") or engine == "jinabert, CPU":
            rates.setdefault(workload, {})["peer" if engine.startswith("ONNX") else "ours"] = float(rate)
    assert sorted(rates) == sorted(SHAPES) and all(len(pair) == 2 for pair in rates.values()), rates
    most = max(rate for pair in rates.values() for rate in pair.values())
    parts = ['<text class="title" x="16" y="30">Tokens per second on two CPU cores, texts × tokens</text>']
    y = 46
    for workload, pair in sorted(rates.items()):
        parts.append(f'<text class="label" x="130" y="{y + 24}" text-anchor="end">{SHAPES[workload]}</text>')
        for n, (who, name) in enumerate([("ours", "jinabert"), ("peer", "ONNX Runtime 1.32")]):
            width = 520 * pair[who] / most
            top = y + 19 * n
            parts.append(f'<rect class="{who}" x="140" y="{top}" width="{width:.1f}" height="16" rx="2"/>')
            label = f"{pair[who]:,.0f}" + (f"  {name}" if workload == "W1" else "")
            parts.append(f'<text class="label quiet" x="{148 + width:.1f}" y="{top + 13}">{label}</text>')
        y += 52
    caption = "Random weights of small-en size, f32; AMD Zen 5, 2026-11-24; each pair side by side"
    parts.append(f'<text class="label quiet" x="16" y="{y + 14}">{caption}</text>')
    return svg(840, y + 28, "Tokens per second on two CPU cores", parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["terminal", "performance"])
    args = parser.parse_args()
    jinabert = os.path.abspath(os.environ.get("JINABERT", ROOT / "target/release/jinabert"))
    if args.only != "performance":
        (ROOT / "docs/terminal.svg").write_text(terminal(jinabert))
    if args.only != "terminal":
        (ROOT / "docs/performance.svg").write_text(performance())


if __name__ == "__main__":
    main()
