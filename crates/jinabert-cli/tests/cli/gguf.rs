//! Models in a GGUF file.

use crate::kit::{arg, embed, fixture, jinabert, run};
use crate::tasks::lines;
use serde_json::Value;
use std::{fs, path::PathBuf};

const TEXTS: [&str; 3] = ["A blue cat", "Ein Über-Kater, naïve 123!", "return x.foo(bar)"];

fn file(name: &str) -> PathBuf {
    fixture("gguf").join(name)
}

fn vectors(model: &std::path::Path) -> Vec<Vec<f64>> {
    let found = lines(&embed(model, &TEXTS, b"").output("embed"));
    let vector = |line: &Value| {
        let values = line["embedding"].as_array().expect("a vector").iter();
        values.map(|x| x.as_f64().expect("a number")).collect()
    };
    found.iter().map(vector).collect()
}

#[test]
fn vectors_are_those_of_the_directory() {
    // Least cosine: what the rounding of the weights leaves.
    for (name, of, least) in [
        ("tiny-natural-f16.gguf", "tiny-natural", 1.0 - 1e-6),
        ("tiny-natural-q8_0.gguf", "tiny-natural", 1.0 - 1e-4),
        ("tiny-natural-q4_0.gguf", "tiny-natural", 1.0 - 3e-2),
        ("tiny-original-q8_0.gguf", "tiny-original", 1.0 - 1e-4),
        // The halves of the MLP are apart, and the last one is activated.
        ("tiny-code-qknorm-f16-split.gguf", "tiny-code-qknorm", 1.0 - 1e-6),
    ] {
        let (found, expected) = (vectors(&file(name)), vectors(&fixture(of)));
        for (found, expected) in found.iter().zip(&expected) {
            let cosine: f64 = found.iter().zip(expected).map(|(x, y)| x * y).sum();
            assert!(cosine > least && found.len() == expected.len(), "{name}: {cosine}");
        }
    }
}

#[test]
fn info_describes_the_file() {
    let said = |args: &[&str]| {
        let path = file("tiny-natural-q8_0.gguf");
        run(&mut jinabert(&[&["info", "--model", arg(&path)], args].concat()), b"").output("info")
    };
    let text = String::from_utf8(said(&[])).expect("UTF-8");
    for part in ["graph        jina-bert\n", "Q8_0 (", "tokenizer    WordPiece", "lower-cases"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let json: Value = serde_json::from_slice(&said(&["--json"])).expect("JSON");
    assert_eq!(json["pooling"], "mean");
}

#[test]
fn files_that_are_no_model_are_refused() {
    let place = tempfile::tempdir().expect("writable");
    let path = place.path().join("m.gguf");
    let refused = |bytes: &[u8], says: &[&str]| {
        fs::write(&path, bytes).expect("writable");
        embed(&path, &["a"], b"").refused(says[0], 66, says);
    };
    let whole = fs::read(file("tiny-natural-q4_0.gguf")).expect("a fixture");
    refused(b"", &["m.gguf", "cut off"]);
    refused(&whole[..whole.len() - 33], &["m.gguf", "tensor `", "cut off"]);
    refused(&fs::read(file("blocks.gguf")).expect("a fixture"), &["m.gguf", "blocks"]);
    let replaced = |from: &str, to: &str| {
        let at = whole.windows(from.len()).position(|part| part == from.as_bytes());
        let at = at.unwrap_or_else(|| panic!("{from}"));
        let mut bytes = whole.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    refused(&replaced("block_count", "block_kount"), &["jina-bert-v2.block_count", "got none"]);
    refused(&replaced("ggml.tokens", "ggml.tokenz"), &["tokenizer.ggml.tokens", "got none"]);
    refused(&replaced("ffn_down", "ffn_dawn"), &["encoder.layer.0.mlp.wo", "missing"]);
    fs::remove_file(&path).expect("just written");
    embed(&path, &["a"], b"").refused("missing", 66, &["m.gguf"]);
}
