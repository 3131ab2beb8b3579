//! `jinabert info` for the fixtures, and for directories that are not models.

use crate::kit::{Ran, arg, copy, edit, fixture, jinabert, rewrite, run};
use jinabert::{
    Task,
    batch::{PackedBatch, Tokens},
    cpu,
    kernels::Tier,
    model::{Model, ModelOptions, Output},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

fn info(dir: &Path, args: &[&str]) -> Ran {
    run(jinabert(&["info"]).arg("--model").arg(dir).args(args), b"")
}

fn json_of(dir: &Path) -> Value {
    let out = info(dir, &["--json"]).output("info --json");
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    serde_json::from_slice(&out).expect("JSON")
}

fn text_of(dir: &Path) -> String {
    String::from_utf8(info(dir, &[]).output("info")).expect("UTF-8")
}

#[test]
fn every_kind_of_checkpoint_is_recognised() {
    const NONE: Value = Value::Null;
    let reranker = "a reranker (pooler and classifier)";
    let colbert = "a ColBERT model (a projection of every token)";
    let masked = "a masked language model (transform and decoder)";
    let plain = "jina-bert";
    for (name, graph, task, head, mlp, files, used, ignored) in [
        ("tiny-geglu-4h", plain, "embed", NONE, "geglu", 1, 34, 0),
        ("tiny-reglu", plain, "embed", NONE, "reglu", 1, 19, 0),
        ("tiny-original", "jina-bert-original", "embed", NONE, "original", 1, 36, 0),
        ("tiny-code-qknorm", "jina-bert-qk-post-norm", "embed", NONE, "geglu", 1, 46, 0),
        ("tiny-reranker-bpe", plain, "rerank", json!(reranker), "geglu", 1, 23, 0),
        ("tiny-colbert", plain, "multi-vector", json!(colbert), "geglu", 1, 20, 0),
        ("tiny-mlm", plain, "fill-mask", json!(masked), "geglu", 1, 24, 0),
        ("tiny-mlm-decoder-f16", plain, "fill-mask", json!(masked), "geglu", 1, 40, 1),
        ("tiny-sharded", plain, "embed", NONE, "geglu", 3, 34, 0),
        ("tiny-extra-tensors", plain, "embed", NONE, "geglu", 1, 19, 4),
    ] {
        let found = json_of(&fixture(name));
        let expected = json!([graph, task, head, mlp, files, used, ignored]);
        let count = |key: &str| found[key].as_array().expect("a list").len();
        let found = json!([
            found["graph"],
            found["task"],
            found["head"],
            found["feed_forward_type"],
            count("files"),
            found["tensors_used"],
            count("tensors_ignored"),
        ]);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn sizes_and_files_equal_those_on_disk() {
    let dir = fixture("tiny-geglu-4h");
    let found = json_of(&dir);
    let cases = fs::read_to_string(dir.join("cases.json")).expect("the fixture");
    let cases: Value = serde_json::from_str(&cases).expect("JSON");
    assert_eq!(found["parameters"], cases["n_params"]);
    assert_eq!(found["alibi_slopes"], cases["alibi_slopes"]);
    let bytes = fs::metadata(dir.join("model.safetensors")).expect("weights").len();
    assert_eq!(found["files"], json!([{"name": "model.safetensors", "bytes": bytes}]));
    assert_eq!((&found["pooling"], &found["normalize"]), (&json!("mean"), &json!(false)));
    assert_eq!(found["dtypes"], json!([{"dtype": "F32", "elements": cases["n_params"]}]));
    let tokenizer = &found["tokenizer"];
    assert_eq!(tokenizer["special_tokens"]["[MASK]"], cases["special_ids"]["mask"]);
    assert_eq!(
        (&tokenizer["type"], &tokenizer["mask_token"]),
        (&json!("WordPiece"), &json!("[MASK]"))
    );
    assert_eq!((&tokenizer["lowercase"], &tokenizer["max_length"]), (&json!(true), &json!(1024)));
    let code = &json_of(&fixture("tiny-code-qknorm"))["tokenizer"];
    assert_eq!((&code["type"], &code["lowercase"]), (&json!("BPE"), &json!(false)));
    assert_eq!((&code["vocabulary"], &code["mask_token"]), (&json!(480), &json!("<mask>")));
}

#[test]
fn the_default_output_is_a_table() {
    let text = text_of(&fixture("tiny-extra-tensors"));
    for line in [
        "graph        jina-bert\n",
        "for          embed: an encoder without a head\n",
        "MLP          geglu\n",
        "max length   700 (max_position_embeddings)\n",
        "tensors      19 used, 4 ignored\n",
        "ignored      embeddings.position_ids, embeddings.token_type_ids, pooler.dense.bias, ",
        "pooling      not declared\n",
        "licence      unknown: no README.md here\n",
    ] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
    assert!(text_of(&fixture("tiny-mlm")).contains("fill-mask and embed: a masked"));
}

#[test]
fn declarations_of_a_card_are_found() {
    let (_place, dir) = copy("tiny-natural");
    let card = "---\ntags: [x]\nlicense: other\nlicense_name: \"mine\"\n---\nlicense: no\n";
    fs::write(dir.join("README.md"), card).expect("a writable directory");
    assert_eq!(json_of(&dir)["license"], "other, mine");
    fs::write(dir.join("README.md"), "license: no\n").expect("a writable directory");
    assert_eq!(json_of(&dir)["license"], Value::Null);
    assert!(text_of(&dir).contains("licence      not declared\n"));
    edit(&dir.join("config.json"), |config| config["license"] = json!("mit"));
    assert_eq!(json_of(&dir)["license"], "mit");
    let modules = json!([{"type": "sentence_transformers.models.Pooling", "path": "p"},
        {"type": "sentence_transformers.models.Normalize", "path": "n"}]);
    fs::write(dir.join("modules.json"), modules.to_string()).expect("a writable directory");
    fs::create_dir(dir.join("p")).expect("a writable directory");
    let pooling = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false});
    fs::write(dir.join("p/config.json"), pooling.to_string()).expect("a writable directory");
    assert!(text_of(&dir).contains("pooling      cls, then normalised\n"));
    let words = json!({"pooling_mode": ["mean", "max"]});
    fs::write(dir.join("p/config.json"), words.to_string()).expect("a writable directory");
    assert!(text_of(&dir).contains("pooling      mean + max, then normalised\n"));
    fs::remove_file(dir.join("tokenizer.json")).expect("a tokenizer");
    assert_eq!(json_of(&dir)["tokenizer"], Value::Null);
}

/// The announced memory is what the CPU allocates, except for ids, the work list and vectors.
#[test]
fn memory_equals_the_cpus_allocation() {
    for (name, task) in [
        ("tiny-geglu-4h", Task::Embed),
        ("tiny-code-qknorm", Task::Embed),
        ("tiny-original", Task::Embed),
        ("hd64-3heads-f16", Task::Embed),
        ("tiny-colbert", Task::MultiVector),
        ("tiny-mlm", Task::FillMask),
        ("tiny-mlm-decoder-f16", Task::FillMask),
    ] {
        let dir = fixture(name);
        let found = json_of(&fixture(name));
        let bytes = |key: &str| found[key].as_u64().expect("a number");
        let engine = Box::new(cpu::Engine::new(Tier::Blocked));
        let tier = Tier::Blocked;
        let choices = ModelOptions { task, ..ModelOptions::default() };
        let mut model = Model::open_with(&dir, engine, tier.into(), choices).expect("a fixture");
        let ratio = model.allocated_bytes() as f64 / bytes("cpu_weight_bytes") as f64;
        assert!((0.99..1.02).contains(&ratio), "{name}: weights {ratio}");
        let before = model.allocated_bytes();
        let tokens = bytes("cpu_batch_tokens") as usize;
        let tokens = Tokens::new(vec![5; tokens]);
        let dims = model.config().hidden;
        model
            .forward(&PackedBatch::new([&tokens]), Output::Vectors { dims, normalize: false })
            .expect("a batch");
        let taken = model.allocated_bytes() - before;
        let ratio = taken as f64 / bytes("cpu_batch_bytes") as f64;
        assert!((0.99..1.1).contains(&ratio), "{name}: batch {ratio}");
    }
}

#[test]
fn directories_without_a_valid_model_are_refused() {
    let (place, dir) = copy("tiny-natural");
    info(&place.path().join("x"), &[]).refused("nothing", 66, &["cannot read", "config.json"]);
    rewrite(&dir, |stored| {
        stored.rename("encoder.layer.0.mlp.gated_layers.weight", "encoder.layer.0.x");
    });
    info(&dir, &["--json"]).refused("no graph", 66, &["no encoder of a known architecture"]);
    fs::write(dir.join("config.json"), "{}").expect("a writable directory");
    info(&dir, &[]).refused("no sizes", 66, &["missing field `hidden_size`"]);
    let (_place, dir) = copy("tiny-natural");
    fs::write(dir.join("modules.json"), "nope").expect("a writable directory");
    info(&dir, &[]).refused("bad modules", 66, &[arg(&dir.join("modules.json"))]);
    fs::write(dir.join("modules.json"), "[]").expect("a writable directory");
    fs::write(dir.join("tokenizer.json"), "{}").expect("a writable directory");
    info(&dir, &[]).refused("a bad tokenizer", 66, &["tokenizer.json"]);
}
