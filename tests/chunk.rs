//! Chunks of a text: tokens and characters of each, with a WordPiece tokenizer and a byte-level
//! one.

#![allow(clippy::single_range_in_vec_init, reason = "one span is a list of spans, too")]

use jinabert::{
    Error,
    text::{Chunk, Chunked, Chunking, Tokenizer},
};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    ops::Range,
    path::{Path, PathBuf},
    ptr,
    sync::LazyLock,
};

static WORD_PIECE: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("tiny-geglu-4h"));
static BYTES: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("tiny-code-qknorm"));

fn tokenizer(fixture: &str) -> Tokenizer {
    Tokenizer::open(&path(fixture)).expect("a tokenizer")
}

fn path(fixture: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(fixture).join("tokenizer.json")
}

fn count(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("not zero")
}

fn chunked(tokenizer: &Tokenizer, text: &str, chunking: &Chunking) -> Chunked {
    tokenizer.encode_chunked(text, chunking).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

/// Text and tokens of each chunk.
fn parts<'a>(tokenizer: &Tokenizer, text: &'a str, cut: Chunking) -> Vec<(&'a str, Range<usize>)> {
    let chunks = chunked(tokenizer, text, &cut).chunks;
    chunks.into_iter().map(|chunk| (&text[chunk.bytes], chunk.tokens)).collect()
}

fn tokens(n: usize) -> Chunking {
    Chunking::Tokens(count(n))
}

fn sentences(n: usize) -> Chunking {
    Chunking::Sentences(count(n))
}

fn spans(spans: &[Range<usize>]) -> Chunking {
    Chunking::Spans(spans.to_vec())
}

/// Python's reference (`Chunker.chunk_by_tokens`, then `_extend_special_tokens`): windows of the
/// text's tokens, shifted by one for [CLS], which the first includes, as the last includes [SEP].
fn windows(own: usize, n: usize) -> Vec<Range<usize>> {
    let mut windows: Vec<_> = (0..own).step_by(n).map(|i| i + 1..(i + n).min(own) + 1).collect();
    if let Some(first) = windows.first_mut() {
        first.start = 0;
    }
    if let Some(last) = windows.last_mut() {
        last.end += 1;
    }
    windows
}

#[test]
fn prompts_belong_to_the_first_chunk() {
    for tokenizer in [&*WORD_PIECE, &*BYTES] {
        for (prompt, text) in [
            ("query: ", "the cat is here. and there."),
            ("q", "the"),
            ("query: ", "  a  "),
            ("query: ", ""),
            ("", "the cat"),
        ] {
            let whole = format!("{prompt}{text}");
            let before = tokenizer.encode_chunked_after(prompt, text, &tokens(2)).expect("chunks");
            let plain = chunked(tokenizer, &whole, &tokens(1000));
            assert_eq!(before.tokens, plain.tokens, "{whole}");
            let chunks = &before.chunks;
            assert_eq!((chunks[0].tokens.start, chunks[0].bytes.start), (0, 0), "{whole}");
            let last = chunks.last().expect("one at least");
            assert_eq!((last.tokens.end, last.bytes.end), (before.tokens.len(), text.len()));
            let tiles = chunks.windows(2).all(|two| {
                two[0].tokens.end == two[1].tokens.start && two[0].bytes.end == two[1].bytes.start
            });
            assert!(tiles, "{whole}: {chunks:?}");
        }
        let spans = spans(&[0..3, 4..7]);
        let alone = chunked(tokenizer, "the cat", &spans).chunks;
        let after = tokenizer.encode_chunked_after("query: ", "the cat", &spans).expect("chunks");
        let prompt = after.tokens.len() - chunked(tokenizer, "the cat", &tokens(9)).tokens.len();
        for (n, (alone, after)) in alone.iter().zip(&after.chunks).enumerate() {
            assert_eq!((&alone.chars, &alone.bytes), (&after.chars, &after.bytes));
            let start = if n == 0 { 0 } else { alone.tokens.start + prompt };
            assert_eq!(after.tokens, start..alone.tokens.end + prompt);
        }
    }
}

#[test]
fn windows_have_the_given_number_of_tokens() {
    let text = "  a b, c\n";
    let expected = [("  a b", 0..3), (", c\n", 3..6)];
    assert_eq!(parts(&WORD_PIECE, text, tokens(2)), expected);
    assert_eq!(parts(&WORD_PIECE, text, tokens(3)), [("  a b, ", 0..4), ("c\n", 4..6)]);
    assert_eq!(parts(&WORD_PIECE, text, tokens(4)), [(text, 0..6)]);
    assert_eq!(parts(&WORD_PIECE, text, tokens(usize::MAX)), [(text, 0..6)]);
    // A single space is a token here; other spaces belong to words, but do not begin them.
    let expected = [("  a ", 0..3), ("b, ", 3..5), ("c\n", 5..8)];
    assert_eq!(parts(&BYTES, text, tokens(2)), expected);
}

#[test]
fn characters_are_counted_as_python_counts_them() {
    let text = "\u{e9}\u{65e5} \u{1f469}\u{200d}\u{1f4bb} a";
    let chunks = chunked(&WORD_PIECE, text, &tokens(2)).chunks;
    let [first, last] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!(*first, Chunk { tokens: 0..3, chars: 0..3, bytes: 0..6 });
    assert_eq!(*last, Chunk { tokens: 3..6, chars: 3..8, bytes: 6..19 });
}

/// Several tokens may form one character, and several characters one token.
#[test]
fn characters_are_not_cut() {
    let expected = [("\u{1f469}", 0..3), ("", 3..5), ("!", 5..7)];
    assert_eq!(parts(&BYTES, "\u{1f469}!", tokens(2)), expected);
    // A capital I with a dot is two characters in lower case.
    assert_eq!(parts(&WORD_PIECE, "\u{130}a", tokens(1)), [("\u{130}", 0..2), ("a", 2..4)]);
    assert_eq!(parts(&WORD_PIECE, "e\u{301}a", tokens(1)), [("e\u{301}", 0..2), ("a", 2..4)]);
}

#[test]
fn groups_have_the_given_number_of_sentences() {
    let text = "A b 3.8 c. D?  \n\n E!\n";
    let three = [("A b 3.8 c. ", 0..8), ("D?  \n\n", 8..10), (" E!\n", 10..13)];
    assert_eq!(parts(&WORD_PIECE, text, sentences(1)), three);
    let two = [("A b 3.8 c. D?  \n\n", 0..10), (" E!\n", 10..13)];
    assert_eq!(parts(&WORD_PIECE, text, sentences(2)), two);
    for n in [3, 4, usize::MAX] {
        assert_eq!(parts(&WORD_PIECE, text, sentences(n)), [(text, 0..13)]);
    }
    // Line breaks are tokens here; they belong to the sentence before them, or to the first.
    let text = "\n\nA.\n\nB.";
    assert_eq!(parts(&BYTES, text, sentences(1)), [("\n\nA.\n\n", 0..7), ("B.", 7..10)]);
}

#[test]
fn texts_without_tokens_are_one_chunk() {
    for text in ["", "  \n", "\u{301}\u{301}"] {
        for chunking in [tokens(1), sentences(1)] {
            assert_eq!(parts(&WORD_PIECE, text, chunking), [(text, 0..2)], "{text:?}");
        }
    }
    assert_eq!(parts(&BYTES, "", tokens(1)), [("", 0..2)]);
}

/// [CLS] a b c . d [SEP]
#[test]
fn spans_count_characters_and_take_whole_tokens() {
    let text = "a b c. d";
    let cut = |given: &[Range<usize>]| parts(&WORD_PIECE, text, spans(given));
    assert_eq!(cut(&[0..8]), [(text, 0..7)]);
    assert_eq!(cut(&[0..4, 4..8]), [("a b ", 0..3), ("c. d", 3..7)]);
    // Spaces need not be covered; the special tokens are still next to the text's first and last.
    assert_eq!(cut(&[0..1, 2..6, 7..8]), [("a", 0..2), ("b c.", 2..5), ("d", 5..7)]);
    // Uncovered tokens are in no chunk, and separate the special tokens from the chunks.
    assert_eq!(cut(&[2..3]), [("b", 2..3)]);
    assert_eq!(cut(&[2..3, 4..6]), [("b", 2..3), ("c.", 3..5)]);
    assert_eq!(cut(&[0..3]), [("a b", 0..3)]);
    // A span may begin with the space that is part of a byte-level token, or after it.
    assert_eq!(parts(&BYTES, text, spans(&[2..3])), [("b", 2..3)]);
    assert!(BYTES.encode_chunked(text, &spans(&[1..2])).is_err());
    assert_eq!(parts(&BYTES, text, spans(&[1..3])), [(" b", 2..3)]);
    // A token of only spaces begins with the first of them.
    assert_eq!(parts(&BYTES, "a   b", spans(&[1..2])), [(" ", 2..3)]);
    // Characters, not bytes.
    let text = "\u{65e5}\u{672c} a";
    assert_eq!(parts(&WORD_PIECE, text, spans(&[1..2])), [("\u{672c}", 2..3)]);
    // A token in two spans belongs to the first; the second must have one of its own.
    let word = "[SEP] a";
    assert_eq!(parts(&WORD_PIECE, word, spans(&[0..2, 2..7]))[0], ("[S", 0..2));
    let refused = WORD_PIECE.encode_chunked(word, &spans(&[0..2, 2..5]));
    assert!(refused.expect_err("no token").to_string().contains("span 1, 2..5: no token begins"));
}

#[test]
fn spans_that_do_not_suit_the_text_are_refused() {
    let refused = |given: &[Range<usize>]| match WORD_PIECE.encode_chunked("a b  c", &spans(given))
    {
        Err(Error::Input { index: 0, what }) => what,
        other => panic!("{given:?}: {other:?}"),
    };
    assert_eq!(refused(&[]), "no spans to cut at");
    let backwards = Range { start: 3, end: 1 };
    assert_eq!(refused(&[backwards]), "span 0, 3..1: runs backwards");
    assert_eq!(refused(&[0..1, 2..2]), "span 1, 2..2: is empty");
    let passes = "span 1, 5..7: passes the end of the text, 6 characters";
    assert_eq!(refused(&[0..1, 5..7]), passes);
    let overlap = "span 1, 2..6: begins before the span before it ends, at 3";
    assert_eq!(refused(&[0..3, 2..6]), overlap);
    let overlap = "span 1, 0..1: begins before the span before it ends, at 6";
    assert_eq!(refused(&[5..6, 0..1]), overlap);
    let none = "span 1, 3..5: no token begins in it, and a chunk has at least one";
    assert_eq!(refused(&[0..1, 3..5]), none);
}

/// 40,000 tokens, and 300,000 spaces after a full stop: quadratic time would take minutes.
#[test]
fn long_texts_are_cut() {
    let text = "a b c. D ".repeat(8_000);
    for tokenizer in [&*WORD_PIECE, &*BYTES] {
        let windows = parts(tokenizer, &text, tokens(1));
        assert!(windows.len() >= 40_000 && windows.len() == windows[windows.len() - 1].1.end - 2);
        assert_eq!(parts(tokenizer, &text, sentences(1)).len(), 8_001);
        let given: Vec<_> = (0..8_000).map(|n| 9 * n..9 * n + 6).collect();
        assert_eq!(parts(tokenizer, &text, Chunking::Spans(given)).len(), 8_000);
    }
    let text = format!("A.{}B. C", " ".repeat(300_000));
    assert_eq!(parts(&WORD_PIECE, &text, sentences(1)).len(), 3);
}

/// Letters, digits, ends of sentences, white space, CJK, emoji with joiners, combining marks,
/// right-to-left letters and marks, zero-width characters, letters that normalisation lengthens.
fn piece() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z]{1,3}",
        "[0-9]{1,2}",
        "[.!?,;()\"'] ?",
        "[ \t\n]{1,3}",
        "[\u{4e00}-\u{4e20}\u{3042}\u{30a2}\u{ac00}\u{3002}]",
        Just("\u{1f469}\u{200d}\u{1f4bb}".to_owned()),
        "[\u{1f600}-\u{1f610}\u{1f3fd}\u{fe0f}]",
        "e?[\u{300}-\u{310}\u{327}]{1,2}",
        "[\u{5d0}-\u{5d4}\u{627}-\u{62a}\u{64e}\u{200f}]",
        "[\u{200b}\u{200c}\u{feff}\u{ad}\u{a0}\u{2028}\u{85}\u{0}\u{fffd}]",
        "[\u{130}\u{fb01}\u{1e9e}\u{df}\u{c5}\u{1d160}\u{ac01}]",
        Just("[SEP]".to_owned()),
        Just(" <mask> ".to_owned()),
    ];
    piece.boxed()
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..24).prop_map(|pieces| pieces.concat())
}

/// Ids equal those of the plain encoding, and ranges are consistent with the text.
fn check(tokenizer: &Tokenizer, text: &str, chunked: &Chunked) {
    let plain = tokenizer.encode(&[text], None).expect("tokens");
    assert_eq!(chunked.tokens, plain[0].tokens, "{text:?}");
    for Chunk { tokens, chars, bytes } in &chunked.chunks {
        assert!(tokens.end <= chunked.tokens.len() && !tokens.is_empty(), "{text:?}");
        for (char, byte) in [(chars.start, bytes.start), (chars.end, bytes.end)] {
            assert_eq!(text[..byte].chars().count(), char, "{text:?}");
        }
    }
}

/// The chunks contain every token and every character exactly once.
fn check_tiles(text: &str, chunked: &Chunked) {
    let joined: Vec<usize> = chunked.chunks.iter().flat_map(|c| c.tokens.clone()).collect();
    assert!(joined.into_iter().eq(0..chunked.tokens.len()), "{text:?}: {:?}", chunked.chunks);
    let parts = chunked.chunks.iter().map(|chunk| &text[chunk.bytes.clone()]);
    assert_eq!(parts.collect::<String>(), text);
}

/// Position of the first character of each of the text's tokens, from the crate's own offsets
/// before its post-processor trims them.
fn first_characters(tokenizer: &Tokenizer, text: &str) -> Vec<usize> {
    let fixture = if ptr::eq(tokenizer, &*BYTES) { "tiny-code-qknorm" } else { "tiny-geglu-4h" };
    static RAW: LazyLock<[(&str, tokenizers::Tokenizer); 2]> = LazyLock::new(|| {
        ["tiny-code-qknorm", "tiny-geglu-4h"].map(|fixture| {
            let mut raw = tokenizers::Tokenizer::from_file(path(fixture)).expect("a tokenizer");
            raw.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
            (fixture, raw)
        })
    });
    let raw = RAW.iter().find(|(name, _)| *name == fixture).map(|(_, raw)| raw);
    let encoding = raw.expect("one of both").encode(text, false).expect("tokens");
    let first = |&(start, end): &(usize, usize)| {
        let blank = text[start..end].find(|c: char| !c.is_whitespace());
        let start = start + blank.unwrap_or(0);
        text[..start].chars().count()
    };
    encoding.get_offsets().iter().map(first).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn windows_tile_any_text(text in text(), n in 1usize..7) {
        for tokenizer in [&*WORD_PIECE, &*BYTES] {
            let chunked = chunked(tokenizer, &text, &tokens(n));
            check(tokenizer, &text, &chunked);
            check_tiles(&text, &chunked);
            let ranges: Vec<_> = chunked.chunks.iter().map(|chunk| chunk.tokens.clone()).collect();
            match chunked.tokens.len() - 2 {
                0 => prop_assert_eq!(ranges, [0..2]),
                own => prop_assert_eq!(ranges, windows(own, n)),
            }
        }
    }

    #[test]
    fn sentences_tile_any_text(text in text(), n in 1usize..4) {
        for tokenizer in [&*WORD_PIECE, &*BYTES] {
            let chunked = chunked(tokenizer, &text, &sentences(n));
            check(tokenizer, &text, &chunked);
            check_tiles(&text, &chunked);
            let blank = |chunk: &Chunk| text[chunk.bytes.clone()].trim().is_empty();
            prop_assert!(chunked.chunks.len() == 1 || !chunked.chunks.iter().any(blank));
            // Spans with the same character ranges give the same chunks.
            if chunked.tokens.len() > 2 {
                let given = chunked.chunks.iter().map(|chunk| chunk.chars.clone()).collect();
                let again = tokenizer.encode_chunked(&text, &Chunking::Spans(given));
                prop_assert_eq!(again.expect("spans with tokens"), chunked);
            }
        }
    }

    #[test]
    fn spans_have_the_tokens_that_begin_in_them(
        text in text().prop_map(|text| format!("a{text}")),
        cuts in prop::collection::btree_set(0usize..40, 2..8),
    ) {
        let length = text.chars().count();
        let cuts: BTreeSet<_> = cuts.into_iter().map(|cut| cut % (length + 1)).collect();
        let cuts: Vec<_> = cuts.into_iter().collect();
        let given: Vec<_> = match &cuts[..] {
            [_] => vec![0..length],
            cuts => cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect(),
        };
        for tokenizer in [&*WORD_PIECE, &*BYTES] {
            let starts = first_characters(tokenizer, &text);
            let own = starts.len();
            let expected = given.iter().map(|span| {
                let within = |&n: &usize| span.contains(&starts[n]);
                let first = (0..own).find(within)?;
                let last = (0..own).rfind(within)?;
                let start = if first == 0 { 0 } else { first + 1 };
                Some(start..last + if last + 1 == own { 3 } else { 2 })
            });
            let expected: Vec<_> = expected.collect();
            match tokenizer.encode_chunked(&text, &spans(&given)) {
                Ok(chunked) => {
                    check(tokenizer, &text, &chunked);
                    for ((chunk, span), tokens) in chunked.chunks.iter().zip(&given).zip(expected) {
                        prop_assert_eq!(&chunk.chars, span);
                        prop_assert_eq!(Some(chunk.tokens.clone()), tokens);
                    }
                    prop_assert_eq!(chunked.chunks.len(), given.len());
                }
                Err(error) => {
                    let n = expected.iter().position(Option::is_none).expect("a span without");
                    let says = format!("span {n}, {}..{}: no token", given[n].start, given[n].end);
                    prop_assert!(error.to_string().contains(&says), "{}", error);
                }
            }
        }
    }
}
