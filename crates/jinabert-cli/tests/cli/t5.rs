//! T5 encoders: jina-embedding-{s,b,l}-en-v1, and what is refused.

use crate::kit::{arg, configure, copy, embed, fixture, jinabert, rewrite, run};
use crate::tasks::{cases, lines, near};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn texts_have_the_fixtures_vectors() {
    for name in ["t5-base", "t5-plain"] {
        let model = fixture(name);
        let mut checked = 0;
        for case in cases(name)["cases"].as_array().expect("cases") {
            let Some(text) = case["text"].as_str().filter(|text| text.len() < 200) else {
                continue;
            };
            let found = lines(&embed(&model, &["--no-normalize", text], b"").output(text));
            let expected = case["expect"]["pooled"].as_array().expect("a vector");
            let found = found[0]["embedding"].as_array().expect("a vector");
            assert_eq!(found.len(), expected.len());
            found.iter().zip(expected).for_each(|(x, y)| near(x, y, 5e-5));
            checked += 1;
        }
        assert!(checked > 4, "{name}: {checked} texts");
    }
}

#[test]
fn info_names_the_buckets() {
    let info = |more: &[&str]| {
        let model = fixture("t5-base");
        let args = [&["info", "--model", arg(&model)], more].concat();
        run(&mut jinabert(&args), b"").output("info")
    };
    let text = String::from_utf8(info(&[])).expect("UTF-8");
    assert!(text.contains("graph        t5-encoder\n"), "{text}");
    assert!(text.contains("32 buckets of distances up to 91"), "{text}");
    assert!(text.contains("special      <pad> 0, "), "{text}");
    assert!(text.contains(" more; mask token: none; 1 added to a text"), "{text}");
    let json: Value = serde_json::from_slice(&info(&["--json"])).expect("JSON");
    assert_eq!(json["position_embedding_type"], "relative");
}

#[test]
fn other_kinds_of_t5_are_refused() {
    let refused = |damage: &dyn Fn(&Path), says: &[&str]| {
        let (_place, dir) = copy("t5-base");
        damage(&dir);
        embed(&dir, &["a"], b"").refused(says[0], 66, says);
    };
    let set =
        |key: &'static str, value: Value| move |dir: &Path| configure(dir, key, value.clone());
    refused(&set("feed_forward_proj", json!("gated-gelu")), &["`gated-gelu`", "T5 1.1"]);
    refused(&set("relative_attention_num_buckets", json!(16)), &["relative_attention_bias", "[16"]);
    refused(
        &set("relative_attention_num_buckets", json!(6)),
        &["num_buckets is 6", "multiples of 4"],
    );
    refused(&set("d_kv", json!(18)), &["a head is 18 wide", "multiples of 4"]);
    refused(&set("d_kv", json!(32)), &["SelfAttention", "[64, 64]"]);
    let renamed = |from: &'static str, to: &'static str| {
        move |dir: &Path| rewrite(dir, |stored| stored.rename(from, to))
    };
    let wi = "encoder.block.0.layer.1.DenseReluDense.wi.weight";
    let gated = renamed(wi, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight");
    refused(&gated, &["T5 1.1", "gated"]);
    let decoder = renamed(wi, "decoder.block.0.layer.1.DenseReluDense.wi.weight");
    refused(&decoder, &["a T5 with a decoder"]);
    // A T5's tensors with a BERT's config.json, and the other way round.
    let (_place, dir) = copy("t5-base");
    let bert = std::fs::read(fixture("tiny-natural").join("config.json")).expect("a file");
    std::fs::write(dir.join("config.json"), bert).expect("writable");
    embed(&dir, &["a"], b"").refused("another config", 66, &["`t5-encoder`", "no T5's"]);
    let (_place, dir) = copy("tiny-natural");
    let t5 = std::fs::read(fixture("t5-base").join("config.json")).expect("a file");
    std::fs::write(dir.join("config.json"), t5).expect("writable");
    embed(&dir, &["a"], b"").refused("another config", 66, &["`jina-bert`", "a T5's"]);
}
