#!/usr/bin/env python3
"""Checks the relative links and #anchors of the Markdown files.

    tools/links.py               the project's documentation
    tools/links.py FILE...       these files

A link names a file or directory of the repository, spelled exactly; an anchor names a heading of a Markdown file, as
GitHub derives it, or a line of another file (#L10).  Links to other sites are not followed.  Exit code 1 if a link is
wrong, with `file:line: expected …, got …` for each; 2 if a file cannot be read.  Needs Python 3.8 without packages.
"""

from __future__ import annotations

import argparse
import re
import sys
import urllib.parse
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Files that must exist, and patterns that match at least one.
DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**/*.md",
    "shaders/README.md",
    "benches/README.md",
    "tools/**/README.md",
    "python/README.md",
]

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# Target of an inline link or image: <target> or target, then maybe a "title".
INLINE = re.compile(r"\]\(\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\([^\s()]*\))*))(?:\s+[\"'(][^\"')]*[\"')])?\s*\)")
# Definition of a reference: [name]: target
DEFINITION = re.compile(r"^ {0,3}\[[^\]^][^\]]*\]:\s*<?([^\s>]+)>?", re.MULTILINE)
HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE)
NAMED = re.compile(r"<\w+\b[^>]*?\b(?:id|name)\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE)
ATX = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*$")
SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
SCHEME = re.compile(r"^(?:[a-zA-Z][a-zA-Z0-9+.-]*:|//)")


def blank(text: str) -> str:
    """The same number of characters and lines, without content."""
    return re.sub(r"[^\n]", " ", text)


def without_fences(text: str) -> str:
    """Text with fenced code blocks blanked; line numbers stay."""
    lines, fence = [], ""
    for line in text.split("\n"):
        found = FENCE.match(line)
        if fence:
            closes = found and found[1].startswith(fence) and not found[2].strip()
            lines.append(blank(line))
            fence = "" if closes else fence
        elif found and "`" not in found[2]:
            fence = found[1]
            lines.append(blank(line))
        else:
            lines.append(line)
    return "\n".join(lines)


def prose(text: str) -> str:
    """Text with everything blanked in which nothing is a link: code and comments."""
    text = COMMENT.sub(lambda found: blank(found[0]), without_fences(text))
    paragraphs = re.split(r"(\n[ \t]*\n)", text)  # a code span ends with its paragraph
    return "".join(CODE_SPAN.sub(lambda found: blank(found[0]), part) for part in paragraphs)


def links(text: str) -> list[tuple[int, str]]:
    """Line and target of every link, in order."""
    text, found = prose(text), []
    for pattern in (INLINE, DEFINITION, HTML):
        for match in pattern.finditer(text):
            target = next(group for group in (*match.groups(), "") if group is not None)
            found.append((text.count("\n", 0, match.start()) + 1, target))
    return sorted(found)


def slug(heading: str) -> str:
    """Anchor of a heading, as GitHub derives it."""
    heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link counts as its text
    heading = re.sub(r"<[^>]*>", "", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@lru_cache(maxsize=None)
def anchors(path: Path) -> frozenset[str]:
    """Anchors of a Markdown file; a repeated heading gets a number."""
    text = without_fences(path.read_text(encoding="utf-8"))
    found, counts, before = set(NAMED.findall(text)), {}, ""
    for line in text.split("\n"):
        heading = ATX.match(line)
        title = heading[1] if heading else None
        if SETEXT.match(line) and before.strip() and not before.startswith(("|", "#", "-", ">", "    ")):
            title = before
        if title is not None:
            name = slug(title)
            number = counts.get(name, 0)
            counts[name] = number + 1
            found.add(f"{name}-{number}" if number else name)
        before = line
    return frozenset(found)


def spelled(path: Path) -> bool:
    """True if there is a file, or a directory with files, of exactly these letters; some systems ignore case."""
    at = ROOT
    for part in path.relative_to(ROOT).parts:
        if not at.is_dir() or part not in {entry.name for entry in at.iterdir()}:
            return False
        at = at / part
    # Git has no empty directories.
    return at.is_file() or any(below.is_file() for below in at.rglob("*"))


def shown(path: Path) -> str:
    try:
        return path.relative_to(ROOT).as_posix()
    except ValueError:
        return str(path)


def fault(document: Path, target: str) -> str | None:
    """What is wrong with a link."""
    if SCHEME.match(target):
        return None
    name, _, anchor = target.partition("#")
    name, anchor = urllib.parse.unquote(name), urllib.parse.unquote(anchor)
    if not name and not anchor:
        return f"expected a target, got {target or 'nothing'}"
    if name.startswith("/"):
        return f"expected a relative path, got {target}"
    # Not Path.resolve: a symbolic link is a file like any other.
    parts: list[str] = []
    base = () if document.parent == ROOT else document.parent.relative_to(ROOT).parts
    for part in (*base, *Path(name).parts) if name else document.relative_to(ROOT).parts:
        if part == ".." and not parts:
            return f"expected a path within the repository, got {target}"
        parts = parts[:-1] if part == ".." else [*parts, part]
    path = ROOT.joinpath(*parts)
    if not spelled(path):
        return f"expected a file or directory, got {target}"
    if not anchor:
        return None
    if path.is_dir():
        return f"expected a directory without an anchor, got {target}"
    if path.suffix != ".md":
        lines = re.fullmatch(r"L(\d+)(?:-L(\d+))?", anchor)
        last = int(lines[2] or lines[1]) if lines else 0
        count = len(path.read_bytes().splitlines())
        return None if 0 < last <= count else f"expected a line of {shown(path)}, #L1 to #L{count}, got {target}"
    if anchor not in anchors(path):
        return f"expected an anchor of {shown(path)}, got {target}"
    return None


def documents() -> list[Path]:
    found: list[Path] = []
    for pattern in DOCUMENTS:
        files = sorted(ROOT.glob(pattern))
        if not files:
            raise FileNotFoundError(f"expected a file {pattern}, got none")
        found += files
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="Markdown files of the repository")
    options = parser.parse_args()
    count, faults = 0, []
    try:
        files = [path.absolute() for path in options.files] or documents()
        for path in files:
            if ROOT not in path.parents:
                raise FileNotFoundError(f"expected a file of {ROOT}, got {path}")
            found = links(path.read_text(encoding="utf-8"))
            count += len(found)
            wrong = ((line, fault(path, target)) for line, target in found)
            faults += [f"{shown(path)}:{line}: {what}" for line, what in wrong if what]
    except (OSError, UnicodeDecodeError) as error:
        print(f"tools/links.py: {error}", file=sys.stderr)
        return 2
    for line in faults:
        print(line)
    print(f"{len(files)} files, {count} links, {len(faults)} wrong")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
