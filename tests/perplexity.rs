//! Log-probabilities of masked tokens in batches, against single computations and the float64
//! fixtures.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::fixture;
use jinabert::{Device, Embedder, Error, Options, PerplexityOptions, Task, batch::Tokens};
use serde_json::Value;
use std::fs;

fn open(name: &str, options: Options) -> Embedder {
    let options = Options { device: Device::Cpu, task: Task::FillMask, ..options };
    Embedder::open_with(fixture(name), options).expect("a good fixture")
}

fn drawn(length: usize, seed: u32) -> Tokens {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        10 + (state >> 8) % 380
    };
    Tokens::new((0..length).map(|_| next()).collect())
}

#[test]
fn batches_equal_each_list_alone() {
    for name in ["tiny-mlm", "tiny-mlm-decoder-f16"] {
        let embedder = open(name, Options { batch_tokens: Some(700), ..Options::default() });
        let lists = [drawn(3, 1), drawn(600, 2), drawn(1000, 3), drawn(64, 4), drawn(64, 5)];
        let places: [Vec<usize>; 5] = [
            vec![1],
            (0..600).step_by(7).collect(),
            (3..1000).step_by(2).collect(),
            Vec::new(),
            vec![63, 0, 20],
        ];
        let masked: Vec<(&Tokens, &[usize])> =
            lists.iter().zip(&places).map(|(list, places)| (list, &places[..])).collect();
        let together = embedder.tokens().log_probabilities(&masked).expect("short lists");
        let mut compared = 0;
        for (one, found) in masked.iter().zip(&together) {
            let alone =
                embedder.tokens().log_probabilities(&[*one]).expect("a short list").remove(0);
            assert_eq!((alone.len(), found.len()), (one.1.len(), one.1.len()), "{name}");
            for (a, b) in alone.iter().zip(found) {
                assert!((a - b).abs() <= 1e-4 && *a < 0.0, "{name}: {a} alone, {b} in a batch");
                compared += 1;
            }
        }
        assert_eq!(compared, 1 + 86 + 499 + 3);
        assert!(together[2].windows(2).any(|two| two[0] != two[1]), "{name}: all alike");
        // More rows of logits than are computed at once.
        let wide = drawn(1020, 6);
        let both: Vec<usize> = (0..1020).collect();
        let all = open(name, Options::default());
        let copies: Vec<(&Tokens, &[usize])> = vec![(&wide, &both); 3];
        let all = all.tokens().log_probabilities(&copies).expect("short lists");
        for other in &all[1..] {
            assert!(all[0].iter().zip(other).all(|(a, b)| (a - b).abs() <= 1e-4), "{name}");
        }
    }
}

#[test]
fn tokens_masked_alone_have_the_published_log_probabilities() {
    for name in ["tiny-mlm", "tiny-mlm-decoder-f16"] {
        let cases = fs::read(fixture(name).join("cases.json")).expect("cases");
        let cases: Value = serde_json::from_slice(&cases).expect("JSON");
        let bound = 2.0 * cases["tolerance"]["mlm_logits_max_abs"].as_f64().expect("a tolerance");
        let special: Vec<u64> = ["pad", "cls", "sep"]
            .map(|name| cases["special_ids"][name].as_u64().expect("an id"))
            .to_vec();
        let embedder = open(name, Options::default());
        let mut checked = 0;
        for case in cases["cases"].as_array().expect("cases") {
            let Some(expected) = case["expect"]["mlm"]["pll_per_token"].as_array() else {
                continue;
            };
            let list = |key: &str| -> Vec<u32> {
                serde_json::from_value(case[key].clone()).expect("a list")
            };
            let tokens = Tokens { type_ids: list("type_ids"), ..Tokens::new(list("ids")) };
            let ordinary = |n: &usize| !special.contains(&u64::from(tokens.ids[*n]));
            let places: Vec<[usize; 1]> = (0..tokens.len()).filter(ordinary).map(|n| [n]).collect();
            let masked: Vec<(&Tokens, &[usize])> =
                places.iter().map(|place| (&tokens, &place[..])).collect();
            let found = embedder.tokens().log_probabilities(&masked).expect("a short list");
            assert_eq!(found.len(), expected.len(), "{name}");
            for (found, expected) in found.iter().zip(expected) {
                let expected = expected.as_f64().expect("f64");
                assert!((found[0] - expected).abs() <= bound, "{name}: {} {expected}", found[0]);
            }
            checked += 1;
        }
        assert!(checked >= 5, "{name}: {checked} cases");
    }
}

/// Scores of a region's tokens in windows of every length, recomputed from log-probabilities.
#[test]
fn lengths_score_the_same_tokens_in_windows_of_their_own() {
    let embedder = open("tiny-mlm", Options::default());
    let text = "the harbour master wrote down the name of every boat. ".repeat(12);
    let measure =
        PerplexityOptions { lengths: vec![64, 20], windows: 2, stride: None, mask_every: 5 };
    let mut told = Vec::new();
    let measured = embedder
        .pseudo_perplexity(&[&text], &measure, |done, total| told.push((done, total)))
        .expect("a long text");
    assert!(told.is_sorted() && told.iter().all(|(done, total)| done <= total), "{told:?}");
    assert_eq!(told.last().map(|(done, total)| done == total), Some(true));
    assert_eq!((measured.regions, measured.region_tokens, measured.unknown), (2, 62, 0));
    let of = |n: usize| {
        let at = &measured.lengths[n];
        (at.length, at.windows, at.tokens)
    };
    assert_eq!([of(0), of(1)], [(20, 8, 124), (64, 2, 124)]);

    let whole = embedder.tokenize(&[&text]).expect("short enough").remove(0).tokens.ids;
    let own = &whole[1..whole.len() - 1];
    let count = own.len() / 62;
    let room = 62;
    let free = own.len() - count * room;
    let mut sum = 0.0;
    for k in [count / 4, 3 * count / 4] {
        let start = k * room + free * (2 * k + 1) / (2 * count);
        let read = [&whole[..1], &own[start..start + room], &whole[whole.len() - 1..]].concat();
        let read = Tokens::new(read);
        for pass in 0..5 {
            let places: Vec<usize> = (1 + pass..63).step_by(5).collect();
            sum += embedder.tokens().log_probabilities(&[(&read, &places)]).expect("a list")[0]
                .iter()
                .sum::<f64>();
        }
    }
    assert!((measured.lengths[1].nll + sum / 124.0).abs() < 1e-4, "{measured:?}");
    assert_ne!(measured.lengths[0].nll, measured.lengths[1].nll, "context does nothing");
}

#[test]
fn another_task_or_no_text_is_refused() {
    let options = Options { device: Device::Cpu, ..Options::default() };
    let encoder = Embedder::open_with(fixture("tiny-mlm"), options).expect("a good fixture");
    let refused = encoder.pseudo_perplexity(&["a"], &PerplexityOptions::default(), |_, _| ());
    assert!(matches!(refused, Err(Error::Option(what)) if what.contains("FillMask")));
    let embedder = open("tiny-mlm", Options::default());
    let none: [&str; 0] = [];
    let refused = embedder.pseudo_perplexity(&none, &PerplexityOptions::default(), |_, _| ());
    assert!(matches!(refused, Err(Error::Option(what)) if what == "no text to measure"));
    let measure = PerplexityOptions { lengths: vec![10], ..PerplexityOptions::default() };
    let refused = embedder.pseudo_perplexity(&["a", "a b c"], &measure, |_, _| ());
    let Err(Error::Input { index: 1, what }) = refused else { panic!("{refused:?}") };
    assert!(what.starts_with("5 tokens"), "{what}");
}
