//! Late chunking and windows, against the token outputs of the same model.

use jinabert::{
    Device, Embedder, OnLong, Options, Tokens,
    text::{Chunking, Tokenizer, Unit},
};
use std::{fs, num::NonZeroUsize, ops::Range, path::PathBuf};

fn natural() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-natural")
}

fn open(options: Options) -> Embedder {
    let options = Options { device: Device::Cpu, ..options };
    Embedder::open_with(natural(), options).expect("a good fixture")
}

fn drawn(length: usize, seed: u32) -> Tokens {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        5 + (state >> 8) % 390
    };
    Tokens::new((0..length).map(|_| next()).collect())
}

/// Mean of rows in f64, scaled to unit length if requested.
fn mean(hidden: &[f32], d: usize, span: Range<usize>, normalize: bool) -> Vec<f64> {
    let count = span.len() as f64;
    let of = |i: usize| span.clone().map(|t| f64::from(hidden[t * d + i])).sum::<f64>() / count;
    let mean: Vec<f64> = (0..d).map(of).collect();
    let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
    mean.into_iter().map(|x| if normalize { x / norm } else { x }).collect()
}

fn close(what: &str, actual: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (a, e) in actual.iter().zip(expected) {
        assert!((f64::from(*a) - e).abs() <= bound, "{what}: expected {e}, got {a}");
    }
}

#[test]
fn spans_are_means_of_the_token_outputs() {
    for normalize in [true, false] {
        let embedder = open(Options { normalize, ..Options::default() });
        let d = embedder.dim();
        let texts = [drawn(3, 1), drawn(700, 2), drawn(1, 3), drawn(64, 4)];
        let tokens: Vec<&Tokens> = texts.iter().collect();
        let spans = [
            vec![0..1, 1..3, 0..3],
            vec![0..700, 5..6, 100..471, 699..700, 5..6],
            vec![0..1],
            vec![],
        ];
        let hidden = embedder.tokens().each_token(&tokens).expect("short texts");
        let vectors = embedder.tokens().spans(&tokens, &spans).expect("good spans");
        for (n, spans) in spans.iter().enumerate() {
            assert_eq!(vectors[n].len(), spans.len());
            for (span, vector) in spans.iter().zip(&vectors[n]) {
                let expected = mean(&hidden[n], d, span.clone(), normalize);
                close(&format!("text {n}, {span:?}"), vector, &expected, 1e-5);
            }
        }
    }
}

#[test]
fn bad_spans_are_refused() {
    let embedder = open(Options::default());
    let tokens = drawn(10, 1);
    for span in [Range { start: 3, end: 3 }, Range { start: 4, end: 3 }, 0..11, 10..11] {
        let error = embedder.tokens().spans(&[&tokens], &[vec![span.clone()]]).expect_err("bad");
        assert!(error.to_string().contains(&format!("{span:?} are no part of 10")), "{error}");
    }
}

/// 30,000 tokens in windows of 1,000 with an overlap of 100: each chunk is the mean over its
/// tokens, each taken from the window that owns it.
#[test]
fn each_token_comes_from_the_window_that_owns_it() {
    const LENGTH: usize = 30_000;
    const WINDOW: usize = 1_000;
    const OVERLAP: usize = 100;
    let options = Options {
        max_length: Some(WINDOW),
        on_long: OnLong::Window,
        overlap: OVERLAP,
        ..Options::default()
    };
    let embedder = open(options);
    let d = embedder.dim();
    let text = drawn(LENGTH, 7);
    // Expected values: every window, without its overlap.
    let mut hidden = Vec::new();
    let mut start = 0;
    while hidden.len() < LENGTH * d {
        let end = LENGTH.min(start + WINDOW);
        let window = Tokens::new(text.ids[start..end].to_vec());
        let rows = embedder.tokens().each_token(&[&window]).expect("a window").remove(0);
        let known = hidden.len() / d - start;
        hidden.extend_from_slice(&rows[known * d..]);
        start = end - OVERLAP;
    }
    assert_eq!(hidden.len(), LENGTH * d);
    let each = embedder.tokens().each_token(&[&text]).expect("windows").remove(0);
    assert_eq!(each.len(), hidden.len());
    assert!(each.iter().zip(&hidden).all(|(a, b)| (a - b).abs() <= 1e-5), "token outputs");
    let spans =
        vec![0..1, 0..256, 950..1_050, 900..1_900, 12_345..12_346, 2_000..29_000, 29_990..LENGTH];
    let vectors =
        embedder.tokens().spans(&[&text], std::slice::from_ref(&spans)).expect("good spans");
    for (span, vector) in spans.iter().zip(&vectors[0]) {
        close(&format!("{span:?}"), vector, &mean(&hidden, d, span.clone(), true), 1e-5);
    }
    let whole = embedder.tokens().embed(&[&text, &drawn(5, 1)]).expect("windows");
    close("whole", &whole[0], &mean(&hidden, d, 0..LENGTH, true), 1e-5);
    let alone = open(Options::default()).tokens().embed(&[&drawn(5, 1)]).expect("short");
    assert_eq!(whole[1].len(), d);
    close(
        "a short one",
        &whole[1],
        &alone[0].iter().map(|&x| f64::from(x)).collect::<Vec<_>>(),
        1e-6,
    );
}

#[test]
fn one_window_equals_a_forward_without_windows() {
    let limit = 100;
    let options =
        |on_long| Options { max_length: Some(limit), on_long, overlap: 20, ..Options::default() };
    let windows = open(options(OnLong::Window));
    let fits = drawn(limit, 1);
    let long = drawn(limit + 1, 1);
    let plain = open(options(OnLong::Error));
    let a = windows.tokens().embed(&[&fits]);
    let b = plain.tokens().embed(&[&fits]);
    assert_eq!(a.expect("one window"), b.expect("fits"));
    assert!(plain.tokens().embed(&[&long]).is_err());
    assert!(windows.tokens().embed(&[&long]).is_ok());
}

/// Chunks of texts have consistent text, tokens and vectors; truncation keeps the chunks that are
/// left.
#[test]
fn chunks_have_consistent_text_tokens_and_vectors() {
    let text = "One is short. Two is a bit longer than that! Три — не по-английски? Four.";
    let count = |n| NonZeroUsize::new(n).expect("not zero");
    let tokenizer = Tokenizer::open(&natural().join("tokenizer.json")).expect("a tokenizer");
    let embedder = open(Options::default());
    for chunking in [Chunking::Tokens(count(7)), Chunking::Sentences(count(2))] {
        let found = embedder.embed_chunks(&[text, "x"], &chunking).expect("chunks");
        let tokens = tokenizer.encode(&[text], None).expect("tokens").remove(0).tokens;
        let hidden = embedder.tokens().each_token(&[&tokens]).expect("hidden").remove(0);
        assert_eq!(found[0].tokens, tokens.len());
        let mut said = String::new();
        let mut next = 0;
        for piece in &found[0].chunks {
            said += &text[piece.chunk.bytes.clone()];
            assert_eq!(piece.chunk.tokens.start, next);
            next = piece.chunk.tokens.end;
            let expected = mean(&hidden, embedder.dim(), piece.chunk.tokens.clone(), true);
            close("chunk", &piece.vector, &expected, 1e-5);
        }
        assert_eq!((said.as_str(), next), (text, tokens.len()));
        assert_eq!(found[1].chunks.len(), 1);
    }

    let cut = Options { max_length: Some(20), on_long: OnLong::Truncate, ..Options::default() };
    let found = open(cut).embed_chunks(&[text], &Chunking::Tokens(count(7))).expect("cut");
    assert_eq!((found[0].tokens, found[0].chunks.len()), (20, 3));
    assert!(found[0].truncated.is_some_and(|full| full > 20));
    assert_eq!(found[0].chunks[2].chunk.tokens, 15..20);
    let refused = open(Options { max_length: Some(20), ..Options::default() });
    let error = refused.embed_chunks(&["a", text], &Chunking::Tokens(count(7))).expect_err("long");
    assert!(matches!(error, jinabert::Error::TooLong { index: 1, limit: 20, .. }), "{error}");
}

/// Overlapping chunks are means of the same token outputs, and share text and tokens; a truncated
/// text has no chunk that is only overlap.
#[test]
fn overlapping_chunks_are_means_of_the_token_outputs() {
    let text =
        "One is short. Two is a bit longer than that! Три — не по-английски? Four. \u{1f980} Five.";
    let tokenizer = Tokenizer::open(&natural().join("tokenizer.json")).expect("a tokenizer");
    let embedder = open(Options::default());
    let tokens = tokenizer.encode(&[text], None).expect("tokens").remove(0).tokens;
    let hidden = embedder.tokens().each_token(&[&tokens]).expect("hidden").remove(0);
    let own = tokens.len() - 2; // without [CLS] and [SEP]
    for (size, overlap) in [(7, 3), (7, 6), (2, 1), (own - 1, 1), (own, 3), (1000, 999)] {
        let chunking: Chunking = format!("tokens:{size}:{overlap}").parse().expect("good");
        let found = embedder.embed_chunks(&[text], &chunking).expect("chunks").remove(0);
        let mut start = 0;
        let last = found.chunks.len() - 1;
        for (n, piece) in found.chunks.iter().enumerate() {
            let end = own.min(start + size);
            assert_eq!(n == last, end == own, "{size}:{overlap}");
            let first = if n == 0 { 0 } else { 1 + start };
            let behind = if n == last { own + 2 } else { 1 + end };
            assert_eq!(piece.chunk.tokens, first..behind, "{size}:{overlap}, chunk {n}");
            let expected = mean(&hidden, embedder.dim(), first..behind, true);
            close(&format!("{size}:{overlap}, chunk {n}"), &piece.vector, &expected, 1e-5);
            let said: String = text.chars().skip(piece.chunk.chars.start).collect();
            let said: String = said.chars().take(piece.chunk.chars.len()).collect();
            assert_eq!(said, text[piece.chunk.bytes.clone()], "{size}:{overlap}, chunk {n}");
            start += size - overlap;
        }
    }

    let chunking: Chunking = "sentences:3:1".parse().expect("good");
    let found = embedder.embed_chunks(&[text], &chunking).expect("chunks").remove(0);
    let said: Vec<&str> =
        found.chunks.iter().map(|piece| &text[piece.chunk.bytes.clone()]).collect();
    let third = text.find("Три").expect("a sentence");
    assert!(said.len() == 2 && said[1] == &text[third..] && said[0].ends_with("английски? "));
    for piece in &found.chunks {
        let expected = mean(&hidden, embedder.dim(), piece.chunk.tokens.clone(), true);
        close("sentences", &piece.vector, &expected, 1e-5);
    }

    // 18 tokens of the text are left: 0..7, 4..11, 8..15, 12..18; 16..18 would be only overlap.
    let cut = Options { max_length: Some(20), on_long: OnLong::Truncate, ..Options::default() };
    let found = open(cut).embed_chunks(&[text], &"tokens:7:3".parse().expect("good"));
    let found = found.expect("cut").remove(0);
    let ranges: Vec<_> = found.chunks.iter().map(|piece| piece.chunk.tokens.clone()).collect();
    assert_eq!(ranges, [0..8, 5..12, 9..16, 13..20]);
    let size = NonZeroUsize::new(3).expect("not zero");
    let none_new = Chunking::Overlapping { unit: Unit::Tokens, size, overlap: 3 };
    let error = embedder.embed_chunks(&["a b"], &none_new).expect_err("no step").to_string();
    assert!(error.contains("expected an overlap under the size of 3, got 3"), "{error}");
}

/// Text of a licence, with words to look for.
#[test]
fn the_best_chunk_of_a_licence_answers_the_query() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("LICENSE-APACHE")).expect("a licence");
    let options = Options {
        device: Device::Cpu,
        max_length: Some(512),
        on_long: OnLong::Window,
        overlap: 64,
        ..Options::default()
    };
    let model = root.join("models/jinabert-mini-en");
    let embedder = Embedder::open_with(model, options).expect("the shipped model");
    let five = Chunking::Sentences(NonZeroUsize::new(5).expect("not zero"));
    let found = embedder.embed_chunks(&[&text], &five).expect("chunks").remove(0);
    assert!(found.tokens > 2_000 && found.chunks.len() > 20, "{} tokens", found.tokens);
    let query = embedder.embed(&["Can I sue over patents?"]).expect("a query").remove(0);
    let best =
        found.chunks.iter().max_by(|a, b| a.vector.dot(&query).total_cmp(&b.vector.dot(&query)));
    let best = &text[best.expect("chunks").chunk.bytes.clone()];
    assert!(best.contains("patent"), "{best}");
}
