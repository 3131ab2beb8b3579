"""Builds the training text, the held-out texts and the student's tokenizer from the raw corpora.

train.jsonl            items in random order, each a list of one text, or of two that resemble each
                       other (a sentence and a variant of it, a short and a long description)
heldout_text.json      texts of every source, for the agreement with the teacher
heldout_debian.json    1000 packages, none of whose family is in the training text
heldout_wordnet.json   1000 definitions, none of them in the training text
tokenizer.json         the teacher's WordPiece tokenizer (Wu et al. 2016, arXiv:1609.08144) with a
                       part of its vocabulary, chosen by frequency and renumbered
vocab_map.json         the teacher's id of each token kept

Variants are not meant to be true or grammatical: they are texts near each other, and the teacher
says how near.  One seed decides everything, so equal corpora give equal files.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import corpus
from corpus import Package, Source, Synset, is_prose, unique
from models import load_tokenizer
from workdir import WorkDir, argument_parser, require

SEED = 20261123

# How many sentences and paragraphs of each source are used; WordNet has sentences only.
SENTENCES = {
    "wordnet_definition": 26000, "wordnet_example": 26000, "wordnet_entry": 9000,
    "wordnet_lemma": 8000, "debian_short": 9000, "debian_long": 9000, "python_docs": 9000,
    "libreoffice_help": 7000, "gnome_docs": 4000, "debian_books": 4000, "fortunes": 9000,
    "dictionaries": 4000, "manpages": 3000, "state_of_the_union": 12000, "moby_dick": 4000,
}  # fmt: skip
PARAGRAPHS = {
    "debian_long": 1500, "python_docs": 500, "libreoffice_help": 250, "gnome_docs": 150,
    "debian_books": 300, "fortunes": 500, "dictionaries": 250, "manpages": 150,
    "state_of_the_union": 600, "moby_dick": 250,
}  # fmt: skip
DOCUMENTS, DOCUMENT_CHARACTERS = 160, 14000
HELD_OUT_SENTENCES, HELD_OUT_PARAGRAPHS, HELD_OUT_ITEMS = 60, 25, 1000
EXAMPLE_PAIRS, CAPTION_PAIRS, QUESTION_PAIRS = 14000, 9000, 5000

Item = list[str]  # one text, or two near ones that share a batch in training


# ---------------------------------------------------------------------------- WordNet


def hold_out_synsets(synsets: list[Synset]) -> set[int]:
    """Indices of common meanings whose definition does not give the word away."""

    def is_fair(synset: Synset) -> bool:
        definition = synset.definition.lower()
        stems = (re.escape(lemma.lower()[:5]) for lemma in synset.lemmas)
        return (
            synset.frequency >= 3
            and definition.count(" ") >= 3
            and not any(re.search(r"\b" + stem, definition) for stem in stems)
        )

    return set([i for i, synset in enumerate(synsets) if is_fair(synset)][:HELD_OUT_ITEMS])


def wordnet_sources(synsets: list[Synset], rng: random.Random) -> dict[str, list[str]]:
    """Definitions, examples, "lemma: definition" entries and lemmas."""
    common = [synset for synset in synsets if synset.frequency >= 1]
    rare = [synset for synset in synsets if synset.frequency < 1]
    definitions = [synset.definition for synset in common + rare[:15000]]
    examples = [example for synset in synsets for example in synset.examples]
    return {
        "wordnet_definition": [text for text in definitions if is_prose(text, 2, 60)],
        "wordnet_example": [text for text in examples if is_prose(text, 2, 60)],
        "wordnet_entry": [
            f"{rng.choice(synset.lemmas)}: {synset.definition}"
            for synset in rng.sample(common, SENTENCES["wordnet_entry"])
        ],
        "wordnet_lemma": unique(
            lemma
            for synset in common
            for lemma in synset.lemmas
            if synset.frequency >= 3 and is_prose(lemma, 1, 5)
        )[:12000],
    }


class Variants:
    """Changes sentences: synonyms, a cut, a lost word, or a new beginning."""

    BEGINNINGS = ("it is not true that", "what does it mean that", "how come",
                  "why do they say", "someone said")  # fmt: skip

    def __init__(
        self, synsets: list[Synset], frequencies: Counter[str], rng: random.Random
    ) -> None:
        self.frequencies, self.rng = frequencies, rng
        self.meanings: defaultdict[str, list[Synset]] = defaultdict(list)
        for synset in synsets:
            for lemma in synset.lemmas:
                self.meanings[lemma.lower()].append(synset)

    def with_synonyms(self, words: list[str]) -> list[str] | None:
        """Up to two words, not too frequent ones, replaced by a synonym of any meaning."""
        rng, replaced = self.rng, 0
        positions = list(range(len(words)))
        rng.shuffle(positions)
        for position in positions:
            word = words[position].lower().strip(".,;!?")
            meanings = self.meanings.get(word)
            if meanings and self.frequencies[word] < 400 and len(word) > 2:
                synonyms = [x for x in rng.choice(meanings).lemmas if x.lower() != word]
                if synonyms:
                    words[position] = rng.choice(synonyms)
                    replaced += 1
            if replaced >= 2:
                break
        return words if replaced else None

    def __call__(self, sentence: str) -> str | None:
        rng, words = self.rng, sentence.split()
        kind = rng.random()
        if kind < 0.55:
            changed = self.with_synonyms(words)
            if changed is None:
                return None
            words = changed
        elif kind < 0.7 and len(words) > 5:
            start = rng.randrange(len(words) - 4)
            words = words[start : start + rng.randrange(4, len(words))]
        elif kind < 0.85 and len(words) > 4:
            del words[rng.randrange(len(words))]
        else:
            words = [rng.choice(self.BEGINNINGS), *words]
        return " ".join(words)


def example_pairs(examples: list[str], variants: Variants, rng: random.Random) -> list[Item]:
    pairs = []
    for sentence in rng.sample(examples, EXAMPLE_PAIRS):
        variant = variants(sentence)
        if variant and is_prose(variant, 2, 60):
            pairs.append([sentence, variant])
    return pairs


# ---------------------------------------------------------------------------- templates

PEOPLE = """man woman boy girl child person dog cat horse baby player cyclist musician worker group
    crowd couple lady guy kid soldier chef skier surfer puppy bird team student teacher farmer
    driver dancer singer""".split()
VERBS = """playing riding holding eating cutting slicing jumping running walking sitting standing
    sleeping climbing throwing catching washing cooking painting reading writing carrying pushing
    pulling watching drinking peeling mixing pouring dancing singing swimming kicking hitting
    opening closing cleaning building repairing chasing feeding""".split()
ADJECTIVES = """young old small large black white brown red blue green yellow tall happy angry tired
    little big wet two three several""".split()
THINGS = """guitar piano ball bike horse onion potato carrot tomato knife book camera phone car
    frisbee skateboard bread meat paper flute drum sandwich boat rope tree hat rock""".split()
PLACES = (
    "in the park", "on the beach", "at a table", "in a field", "on the street", "in the kitchen",
    "near the water", "in the snow", "on a couch", "in front of a building", "at night",
    "in the city", "on the grass", "under a tree", "by the river", "in a room", "on stage",
    "at the airport",
)  # fmt: skip
QUESTIONS = (
    "what is {}?", "what does {} mean?", "how does {} work?", "who invented {}?",
    "why is {} important?", "where can I find {}?", "definition of {}", "is {} dangerous?",
    "what is the difference between {} and {}?", "history of {}", "how do you use {}?",
    "best way to learn about {}", "when did {} begin?", "types of {}", "which {} is the best?",
)  # fmt: skip


class Captions:
    """Sentences like those people write under pictures, and slight changes of them."""

    def __init__(self, nouns: list[str], rng: random.Random) -> None:
        self.nouns, self.rng = nouns, rng

    def subject(self) -> str:
        rng = self.rng
        article = rng.choice(["a", "the", "one", "another", "a", "a"])
        adjective = rng.choice(ADJECTIVES) + " " if rng.random() < 0.4 else ""
        phrase = f"{article} {adjective}{rng.choice(PEOPLE)}"
        return phrase.replace("a old", "an old").replace("a angry", "an angry")

    def object(self) -> str:
        rng = self.rng
        noun = rng.choice(self.nouns if rng.random() < 0.6 else THINGS)
        return f"{rng.choice(['a', 'the', 'some', 'a'])} {noun}"

    def caption(self) -> str:
        rng = self.rng
        if rng.random() < 0.7:
            text = f"{self.subject()} is {rng.choice(VERBS)} {self.object()}"
        else:
            text = f"{self.subject()} {rng.choice(VERBS)}"
        return f"{text} {rng.choice(PLACES)}" if rng.random() < 0.5 else text

    def replace_one(self, text: str, words: list[str]) -> str:
        pattern = r"\b(" + "|".join(words) + r")\b"
        return re.sub(pattern, lambda _: self.rng.choice(words), text, count=1)

    def variant(self, text: str) -> str:
        kind = self.rng.random()
        if kind < 0.3:
            return self.replace_one(text, PEOPLE)
        if kind < 0.6:
            return self.replace_one(text, VERBS)
        if kind < 0.75:
            return text.replace(" is ", " is not ", 1)
        if kind < 0.9:
            return f"{text} {self.rng.choice(PLACES)}"
        return "there is " + text.replace(" is ", " ", 1)

    def pair(self) -> Item:
        text = self.caption()
        pair = [text, self.variant(text)]
        if self.rng.random() < 0.5:
            pair = [text[0].upper() + text[1:] + "." for text in pair]
        return pair


def question_pair(nouns: list[str], rng: random.Random) -> Item:
    """Two questions about the same one or two things."""
    things = rng.choice(nouns), rng.choice(nouns)
    return [template.format(*things) for template in rng.sample(QUESTIONS, 2)]


def template_pairs(synsets: list[Synset], rng: random.Random) -> list[Item]:
    nouns = [s for s in synsets if s.pos == "n" and s.frequency >= 2]
    common = [s.lemmas[0] for s in nouns if s.frequency >= 5]
    simple = [w for w in common if len(w) > 2 and w.islower() and " " not in w]
    captions = Captions(simple, rng)
    pairs = [captions.pair() for _ in range(CAPTION_PAIRS)]
    lemmas = [s.lemmas[0] for s in nouns]
    return pairs + [question_pair(lemmas, rng) for _ in range(QUESTION_PAIRS)]


# ---------------------------------------------------------------------------- Debian packages


def hold_out_packages(packages: list[Package]) -> list[Package]:
    """One telling description from each family, until there are enough."""
    dull = re.compile(
        r"(documentation|headers|development|library|transitional|dummy|debug|translation"
        r"|common files)"
    )
    held: dict[str, Package] = {}
    for package in packages:
        short, long = package.short, package.long
        telling = long and long[0].count(" ") > 15 and short.count(" ") >= 2
        if telling and not dull.search(short):
            held.setdefault(package.family, package)
        if len(held) == HELD_OUT_ITEMS:
            break
    return list(held.values())


def short_descriptions(packages: list[Package]) -> list[str]:
    texts = (p.short for p in packages if not re.search(r"transitional|dummy", p.short))
    return unique(text for text in texts if is_prose(text, 3, 20))[:9000]


def description_pairs(packages: list[Package]) -> list[Item]:
    return [
        [p.short, p.long[0]]
        for p in packages
        if p.long and is_prose(p.short, 2, 400) and is_prose(p.long[0], 5, 150)
    ]


# ---------------------------------------------------------------------------- all of it


def build_items(work: WorkDir) -> list[Item]:
    """Writes the held-out files; returns the items of the training text."""
    rng = random.Random(SEED)
    frequencies = corpus.word_frequencies(work.corpus)
    synsets = corpus.read_wordnet(work.corpus, frequencies)
    rng.shuffle(synsets)
    held_synsets = hold_out_synsets(synsets)
    write_json(
        work.data / "heldout_wordnet.json",
        [
            {"lemma": s.lemmas[0], "lemmas": s.lemmas, "definition": s.definition}
            for s in (synsets[i] for i in sorted(held_synsets))
        ],
    )
    synsets = [synset for i, synset in enumerate(synsets) if i not in held_synsets]
    texts = wordnet_sources(synsets, rng)
    pairs = example_pairs(texts["wordnet_example"], Variants(synsets, frequencies, rng), rng)
    paired = {pair[0] for pair in pairs}
    texts["wordnet_example"] = [t for t in texts["wordnet_example"] if t not in paired]
    pairs += template_pairs([synset for synset in synsets if synset.frequency >= 1], rng)

    packages = corpus.read_packages(work.corpus)
    rng.shuffle(packages)
    held_packages = hold_out_packages(packages)
    write_json(
        work.data / "heldout_debian.json",
        [
            {"name": p.name, "short": p.short, "long": " ".join(p.long)[:1500]}
            for p in held_packages
        ],
    )
    families = {package.family for package in held_packages}
    packages = [package for package in packages if package.family not in families]
    texts["debian_short"] = short_descriptions(packages)
    pairs += description_pairs(packages[9000:12000])

    paragraphs = {
        "debian_long": [text for p in packages[:9000] for text in p.long[:3]],
        "python_docs": corpus.read_python_docs(work.corpus),
        "libreoffice_help": corpus.read_libreoffice_help(work.corpus),
        "gnome_docs": corpus.read_gnome_docs(work.corpus),
        "debian_books": corpus.read_debian_books(work.corpus),
        "fortunes": corpus.read_fortunes(work.corpus),
        "dictionaries": corpus.read_dictionaries(work.corpus),
        "manpages": corpus.read_manpages(work.corpus),
        "state_of_the_union": corpus.read_state_of_the_union(work.corpus, rng),
        "moby_dick": corpus.read_moby_dick(work.corpus),
    }
    sources = {name: Source(sentences=sentences) for name, sentences in texts.items()}
    sources |= {name: Source.from_paragraphs(blocks) for name, blocks in paragraphs.items()}

    held = hold_out_texts(sources, rng)
    write_json(work.data / "heldout_text.json", held)
    held_texts = {text for _, text in held}
    pairs = [pair for pair in pairs if held_texts.isdisjoint(pair)]
    return mix(sources, pairs, rng)


def hold_out_texts(sources: dict[str, Source], rng: random.Random) -> list[tuple[str, str]]:
    """Takes some texts out of every source; (source, text)."""
    held = []
    for name, source in sources.items():
        if name != "wordnet_lemma":
            rng.shuffle(source.sentences)
            held += [(name, text) for text in source.sentences[:HELD_OUT_SENTENCES]]
            del source.sentences[:HELD_OUT_SENTENCES]
    for name in PARAGRAPHS:
        paragraphs = sources[name].paragraphs
        rng.shuffle(paragraphs)
        held += [(name + "_paragraph", text) for text in paragraphs[:HELD_OUT_PARAGRAPHS]]
        del paragraphs[:HELD_OUT_PARAGRAPHS]
    return held


def mix(sources: dict[str, Source], pairs: list[Item], rng: random.Random) -> list[Item]:
    documents = [text for source in sources.values() for text in source.documents]
    rng.shuffle(documents)
    texts = []
    for name, count in SENTENCES.items():
        texts += sample(sources[name].sentences, count, rng)
    for name, count in PARAGRAPHS.items():
        texts += sample(sources[name].paragraphs, count, rng)
    items = [[text] for text in texts] + pairs
    items += [[text[:DOCUMENT_CHARACTERS]] for text in documents[:DOCUMENTS]]
    rng.shuffle(items)
    return items


def sample(texts: list[str], count: int, rng: random.Random) -> list[str]:
    """`count` of the texts, or all of them, in random order."""
    return rng.sample(texts, min(len(texts), count))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


# ---------------------------------------------------------------------------- vocabulary


def choose_vocabulary(vocabulary: dict[str, int], counts: Counter[int], size: int) -> list[str]:
    """Tokens to keep, in the order of the teacher's ids after the five special ones.

    All single ASCII characters stay, so that every ASCII word can be spelt.  The others compete
    with the better of two ranks: BERT's own order, which is by frequency in its training text, and
    the frequency in ours.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    single = [t for t in vocabulary if len(t.replace("##", "")) == 1 and ord(t[-1]) < 128]
    kept = [*special, *sorted(single, key=vocabulary.__getitem__)]
    certain = set(kept)
    rank = {token: r for r, (token, _) in enumerate(counts.most_common())}
    score = {
        token: min(number - 1000, 1.15 * rank.get(number, 40000))
        for token, number in vocabulary.items()
        if token not in certain and number >= 999 and token.isascii()
    }
    kept += sorted(score, key=score.__getitem__)[: size - len(kept)]
    return special + sorted(kept[len(special) :], key=vocabulary.__getitem__)


def build_tokenizer(work: WorkDir, texts: list[str], size: int) -> None:
    """The teacher's tokenizer with `size` of its tokens, renumbered; and the map of the ids."""
    source = work.teacher / "tokenizer.json"
    teacher = load_tokenizer(source)
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 2000):
        batch = teacher.encode_batch(texts[start : start + 2000], add_special_tokens=False)
        for encoding in batch:
            counts.update(encoding.ids)

    tokenizer = json.loads(source.read_text(encoding="utf-8"))
    old = tokenizer["model"]["vocab"]
    kept = choose_vocabulary(old, counts, size)
    new = {token: number for number, token in enumerate(kept)}
    tokenizer["model"]["vocab"] = new
    tokenizer["truncation"] = tokenizer["padding"] = None
    for token in tokenizer["added_tokens"]:
        token["id"] = new[token["content"]]
    for entry in tokenizer["post_processor"]["special_tokens"].values():
        entry["ids"] = [new[token] for token in entry["tokens"]]
    work.tokenizer.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    write_json(work.vocab_map, [old[token] for token in kept])
    covered = sum(counts[old[token]] for token in kept) / counts.total()
    print(f"{len(kept)} tokens, which are {covered:.1%} of those in the training text")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--vocabulary", type=int, default=10240, metavar="V",
        help="size of the student's vocabulary (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args()
    work = args.work
    require(work.corpus, work.teacher / "tokenizer.json", source="run fetch.py first")
    work.data.mkdir(parents=True, exist_ok=True)

    items = build_items(work)
    with open(work.texts, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
    texts = [text for item in items for text in item]
    print(f"{len(items)} items, {len(texts)} texts")
    build_tokenizer(work, texts, args.vocabulary)


if __name__ == "__main__":
    main()
