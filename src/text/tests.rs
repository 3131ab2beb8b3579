//! Comparison of long texts tokenised in pieces with the same texts tokenised whole.

use super::{
    Chunking, Cut, Tokenizer,
    long::{Keep, Kind, Own, Pieces, Seams, classes},
};
use crate::error::Error;
use proptest::prelude::*;
use std::{cell::RefCell, num::NonZeroUsize, path::Path};

thread_local! {
    /// Tokenizers of both kinds: as published, and without seams.
    static BOTH: RefCell<Vec<[Tokenizer; 2]>> = {
        let plain = ["tiny-natural", "tiny-code-qknorm", "tiny-reranker-bpe"].map(read);
        let more = [
            ("tiny-natural", ADDED),
            ("tiny-natural", PLAIN),
            ("tiny-code-qknorm", ADDED),
        ]
        .map(|(name, added)| {
            let from = "\"added_tokens\":[";
            let to = format!("\"added_tokens\":[{added},");
            let json = read(name).replace("\"added_tokens\": [", from);
            assert!(json.contains(from), "{name} has added tokens");
            json.replace(from, &to)
        });
        plain.into_iter().chain(more).map(|json| pair(&json)).collect::<Vec<_>>().into()
    };
}

/// Added tokens that depend on their neighbours.
const ADDED: &str = r#"{"id": 900, "content": "+++", "single_word": true, "lstrip": false,
    "rstrip": false, "normalized": false, "special": false}, {"id": 901, "content": "=", "special": false,
    "single_word": false, "lstrip": true, "rstrip": true, "normalized": false}"#;

/// An added token matched after the normalizer, and one of letters.
const PLAIN: &str = r#"{"id": 900, "content": "X-Ray", "single_word": false, "lstrip": false,
    "rstrip": false, "normalized": true, "special": false}, {"id": 901, "content": "aaaaab",
    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}"#;

fn read(fixture: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/fixtures").join(fixture).join("tokenizer.json");
    std::fs::read_to_string(path).expect("a fixture")
}

fn pair(json: &str) -> [Tokenizer; 2] {
    let open = || Tokenizer::parse(json.as_bytes(), Path::new("a.json")).expect("a tokenizer");
    let parted = open();
    let mut whole = open();
    assert!(parted.seams.is_some(), "this kind has seams");
    whole.seams = None;
    [parted, whole]
}

/// Sets the piece size, and the bytes counted beyond the kept tokens.
fn small(tokenizer: &mut Tokenizer, piece: usize, counted: usize) {
    let seams = tokenizer.seams.as_mut().expect("seams");
    seams.piece = piece;
    seams.counted = counted;
}

/// Asserts that both tokenizers give the same result.
fn same<T: std::fmt::Debug>(
    [parted, whole]: &[Tokenizer; 2],
    run: impl Fn(&Tokenizer) -> Result<T, Error>,
) -> Result<(), TestCaseError> {
    let said = [parted, whole].map(|one| format!("{:?}", run(one).map_err(|e| e.to_string())));
    prop_assert_eq!(&said[0], &said[1]);
    Ok(())
}

fn fragment() -> impl Strategy<Value = String> {
    let odd = [
        " ",
        "  ",
        "\n\n",
        "\t",
        "        ",
        "\u{a0}",
        "\u{3000}",
        "[MASK]",
        "[CLS]",
        "[ MASK]",
        "<mask>",
        "  <mask>",
        "<mask>  ",
        "</s>",
        "<s><s>",
        "'s",
        "'re",
        "''t",
        "don't",
        "A'B'll",
        ".,.,.,",
        "----------------------------",
        "=====",
        "日本語",
        "，",
        "。",
        "é",
        "e\u{301}",
        "\u{301}\u{323}",
        "\u{0}",
        "\u{200b}",
        "\u{fffd}",
        "🦀🦀",
        "😀",
        "Привет",
        "ſ",
        "İ",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "0123456789",
        "१२३",
        "กขค",
        "½",
        "…",
        "«x»",
        "don\u{2019}t",
        "\r\n",
        "\u{85}",
        "\u{1c}",
        "_",
    ];
    prop_oneof![
        4 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        2 => "[a-z]{1,12}",
        1 => "[A-Za-z]{90,130}",
        1 => ".{0,8}",
        1 => "[ \n]{1,60}",
        1 => "[-=.,!']{1,60}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(fragment(), 0..40).prop_map(|parts| parts.concat())
}

fn check(
    both: &mut [Tokenizer; 2],
    text: &str,
    piece: usize,
    cut: Cut,
) -> Result<(), TestCaseError> {
    small(&mut both[0], piece, usize::MAX);
    same(both, |one| one.encode(&[text], None))?;
    same(both, |one| one.encode(&[text], Some(cut)))?;
    same(both, |one| one.encode_parts(text))?;
    same(both, |one| one.pieces(text, true, 9999))?;
    same(both, |one| one.pieces(text, false, 20))?;
    let chunks = Chunking::Tokens(NonZeroUsize::new(cut.limit).expect("some"));
    same(both, |one| one.encode_chunked(text, &chunks))?;
    let pair = Cut { limit: cut.limit.max(6), ..cut };
    for [query, document] in [["a b c", text], [text, "a b c"], [text, text]] {
        if both[0].encode_pairs("a", &["b"], None).is_ok() {
            same(both, |one| one.encode_pairs(query, &[document], Some(pair)))?;
        }
    }
    // Without counting, the kept tokens are the same, and completeness is known.
    small(&mut both[0], piece, 0);
    let some = both[0].encode(&[text], Some(cut)).expect("tokens").remove(0);
    let all = both[1].encode(&[text], Some(cut)).expect("tokens").remove(0);
    prop_assert_eq!(&some.tokens, &all.tokens);
    prop_assert!(some.full_length <= all.full_length);
    prop_assert_eq!(some.full_length > cut.limit, all.full_length > cut.limit);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pieces_are_the_whole(text in text(), piece in 4usize..80, limit in 3usize..60, first: bool) {
        BOTH.with_borrow_mut(|all| {
            all.iter_mut().try_for_each(|both| check(both, &text, piece, Cut { limit, first }))
        })?;
    }
}

/// An added token that includes adjacent white space includes white control characters, too.
#[test]
fn pieces_are_the_whole_beside_dropped_white_space() {
    let text = "=\u{85}\n\n \u{b}=".repeat(12);
    BOTH.with_borrow_mut(|all| {
        for both in all {
            for piece in 4..40 {
                check(both, &text, piece, Cut { limit: 24, first: true }).expect("the same");
            }
        }
    });
}

/// The character classes of the tokenizer, so that a new version of its tables is noticed.
#[test]
fn letters_are_one_word_and_marks_are_words() {
    let [_, whole] = pair(&read("tiny-natural"));
    let (letters, marks) = classes();
    assert!(letters.len() > 10_000 && marks.len() > 20_000);
    let tokens = |text: String| whole.encode_parts(&text).expect("tokens").own.len();
    for c in letters {
        assert_eq!(tokens(c.to_string().repeat(101)), 1, "{c:?}");
        assert_eq!(tokens(format!("{}{c}{}", "a".repeat(60), "a".repeat(60))), 1, "{c:?}");
    }
    for c in marks {
        assert!(tokens(format!("{}{c}{}", "a".repeat(60), "a".repeat(60))) > 2, "{c:?}");
    }
}

/// Records the sizes of requested pieces: every byte is a token.
#[derive(Default)]
struct Asked(RefCell<Vec<usize>>);

impl Pieces for Asked {
    fn tokens(&self, piece: &str, _: bool) -> Result<Own, String> {
        self.0.borrow_mut().push(piece.len());
        let spans = (0..piece.len()).map(|at| at..at + 1).collect();
        Ok(Own { ids: vec![1; piece.len()], spans })
    }

    fn apart(&self, _: u32, _: u32) -> bool {
        true
    }
}

#[test]
fn work_follows_the_limit_not_the_text() {
    let kinds = [Kind::Words { most: 100, chinese: true }, Kind::Bytes];
    let texts = [".,".repeat(2_000_000), "ab ".repeat(1_500_000), "a".repeat(4_000_000)];
    for kind in kinds {
        let words = matches!(kind, Kind::Words { .. });
        let seams = Seams::new(kind, Vec::new()).expect("no added tokens");
        for (n, text) in texts.iter().enumerate() {
            for last in [false, true] {
                let asked = Asked::default();
                let keep = Keep { limit: 64, last, spans: false };
                let (own, count) = seams.read(text, keep, &asked).expect("seams");
                let asked = asked.0.into_inner();
                let most = asked.iter().max().copied();
                let all = asked.iter().sum::<usize>();
                assert_eq!(own.ids.len(), 64, "text {n}");
                assert!(count > 64 && most <= Some(2 * seams.piece), "text {n}: {most:?}");
                // The end of a text that is one match of bytes is found only from its beginning.
                let bound = if last && !words && n != 1 { 9 << 20 } else { 5 << 18 };
                assert!(all <= bound, "text {n}: {all} bytes");
            }
        }
        let all = Keep { limit: usize::MAX, last: false, spans: false };
        let (_, count) = seams.read(&texts[1], all, &Asked::default()).expect("seams");
        assert_eq!(count, texts[1].len());
    }
}

#[test]
fn texts_without_seams_are_refused_beyond_a_megabyte() {
    let [parted, _] = pair(&read("tiny-natural"));
    let cut = Some(Cut { limit: 64, first: false });
    let read = |text: String| parted.encode(&[text], cut).map(|mut all| all.remove(0).full_length);
    assert_eq!(read("a".repeat(3 << 20)).expect("one word"), 3);
    assert_eq!(read("Д".repeat(3 << 20) + " a").expect("two words"), 4);
    let error = read("\u{301}".repeat(1 << 20)).expect_err("marks alone");
    let says = "2097152 bytes without white space or punctuation, over the limit of 1048576";
    assert!(error.to_string().contains(says), "{error}");
}
