//! Declarations in the files of sentence-transformers: pooling, prompts, lengths.

use crate::kit::{arg, copy, copy_model, edit, embed, fixture, jinabert, names, run};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;

const TINY: &str = "tiny-geglu-4h";

/// Copy of a fixture whose modules.json declares pooling in a folder, with this configuration.
fn pooled(folder: &str, config: Option<Value>) -> (TempDir, std::path::PathBuf) {
    let (place, dir) = copy(TINY);
    let modules = json!([
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": folder, "type": "sentence_transformers.models.Pooling"},
    ]);
    put(&dir, "modules.json", &modules);
    if let Some(config) = config {
        fs::create_dir(dir.join(folder)).expect("writable");
        put(&dir, &format!("{folder}/config.json"), &config);
    }
    (place, dir)
}

fn put(dir: &Path, name: &str, value: &Value) {
    fs::write(dir.join(name), value.to_string()).expect("writable");
}

fn vectors(dir: &Path, args: &[&str]) -> Vec<u8> {
    embed(dir, &[&["the cat"], args].concat(), b"").output("embed")
}

fn info(dir: &Path) -> (Value, String) {
    let said = |args: &[&str]| {
        run(jinabert(&["info"]).arg("--model").arg(dir).args(args), b"").output("info")
    };
    let json = serde_json::from_slice(&said(&["--json"])).expect("JSON");
    (json, String::from_utf8(said(&[])).expect("UTF-8"))
}

#[test]
fn pooling_declared_by_any_version_is_used() {
    let by_hand = |mode: &str| vectors(&fixture(TINY), &["--pooling", mode]);
    let mean = by_hand("mean");
    let cls = by_hand("cls");
    assert!(mean != cls);
    let one_word = |mode: Value| json!({"embedding_dimension": 64, "pooling_mode": mode});
    let old = json!({"word_embedding_dimension": 64, "pooling_mode_cls_token": true});
    for (folder, config, name, expected) in [
        ("1_Pooling", one_word(json!("cls")), "cls", &cls),
        ("1_Pooling", one_word(json!(["cls"])), "cls", &cls),
        ("1_Pooling", one_word(json!("mean")), "mean", &mean),
        ("2_Pooling", old, "cls", &cls),
        ("p", json!({"embedding_dimension": 64}), "mean", &mean),
    ] {
        let (_place, dir) = pooled(folder, Some(config.clone()));
        assert!(vectors(&dir, &[]) == *expected, "{config}");
        assert_eq!(info(&dir).0["pooling"], name, "{config}");
    }
    for (mode, says) in [
        (json!("max"), "`max`"),
        (json!("lasttoken"), "`lasttoken`"),
        (json!("weightedmean"), "`weightedmean`"),
        (json!("mean_sqrt_len_tokens"), "`mean_sqrt_len_tokens`"),
        (json!(["cls", "mean"]), "`cls + mean`"),
        (json!(3), "pooling_mode: expected"),
    ] {
        let (_place, dir) = pooled("1_Pooling", Some(one_word(mode.clone())));
        embed(&dir, &["a"], b"").refused(says, 66, &[says]);
    }
}

#[test]
fn a_declared_pooling_that_is_missing_is_named() {
    let (_place, dir) = pooled("1_Pooling", None);
    let file = dir.join("1_Pooling/config.json");
    embed(&dir, &["a"], b"").refused("no pooling", 66, &["cannot read", arg(&file)]);
    let mut command = jinabert(&["info"]);
    run(command.arg("--model").arg(&dir), b"").refused("info", 66, &["cannot read", arg(&file)]);
}

/// Copy of a fixture, with prompts.
fn prompted(declared: &Value) -> (TempDir, std::path::PathBuf) {
    let (place, dir) = pooled("1_Pooling", Some(json!({"pooling_mode": "mean"})));
    put(&dir, "config_sentence_transformers.json", declared);
    (place, dir)
}

#[test]
fn prompts_go_before_texts() {
    let prompts = json!({"query": "query: ", "passage": "passage: "});
    let (_place, dir) = prompted(&json!({"prompts": prompts, "default_prompt_name": "query"}));
    let of = |text: &str| embed(&fixture(TINY), &[text], b"").output("embed");
    let none = of("the cat");
    let query = of("query: the cat");
    assert!(none != query);
    for (args, expected) in [
        (&[][..], &query),
        (&["--prompt-name", "query"], &query),
        (&["--prompt-name", "passage"], &of("passage: the cat")),
        (&["--prompt", "a: "], &of("a: the cat")),
        (&["--prompt", ""], &none),
        (&["--no-prompt"], &none),
    ] {
        assert!(vectors(&dir, args) == *expected, "{args:?}");
    }
    let says = &["prompt name `other`", "`passage`, `query`"];
    embed(&dir, &["a", "--prompt-name", "other"], b"").refused("unknown", 2, says);
    let plain = embed(&fixture(TINY), &["a", "--prompt-name", "query"], b"");
    plain.refused("no prompts", 2, &["prompt name `query`: this model has no prompts"]);
    let both = embed(&dir, &["a", "--prompt-name", "query", "--no-prompt"], b"");
    assert!(both.code == Some(2) && both.stderr.contains("--no-prompt"), "{}", both.stderr);

    // Ids are used as given, chunks exclude the prompt, and token states include it.
    let ids = br#"{"ids": [2, 28, 3]}"#;
    let by_ids = |dir: &Path| embed(dir, &["--input-format", "jsonl"], ids).output("ids");
    assert!(by_ids(&dir) == by_ids(&fixture(TINY)));
    let one_chunk = ["--late-chunking", "--chunk", "tokens:100"];
    let chunk: Value = serde_json::from_slice(&vectors(&dir, &one_chunk)).expect("JSON");
    let whole: Value = serde_json::from_slice(&query).expect("JSON");
    assert_eq!(
        (&chunk["text"], &chunk["start"], &chunk["end"]),
        (&json!("the cat"), &json!(0), &json!(7))
    );
    let component = |of: &Value, n: usize| of["embedding"][n].as_f64().expect("a number");
    for n in 0..64 {
        assert!((component(&chunk, n) - component(&whole, n)).abs() < 1e-6, "{n}");
    }
    let states =
        |dir: &Path, text: &str| embed(dir, &[text, "--pooling", "none"], b"").output("states");
    assert!(states(&dir, "the cat") == states(&fixture(TINY), "query: the cat"));
    let similarity = |dir: &Path, args: &[&str]| {
        let mut command = jinabert(&["similarity", "--model"]);
        let out = run(command.arg(dir).args(args), b"").output("similarity");
        let text = String::from_utf8(out).expect("UTF-8");
        text.lines().map(|line| line[..14].to_owned()).collect::<Vec<_>>()
    };
    let expected = similarity(&fixture(TINY), &["query: a", "query: the cat"]);
    assert_eq!(similarity(&dir, &["a", "the cat"]), expected);
    let expected = similarity(&fixture(TINY), &["a", "the cat"]);
    assert_eq!(similarity(&dir, &["a", "the cat", "--no-prompt"]), expected);

    // The prompt counts towards the maximum length.
    let short = |text: &str, dir: &Path| {
        let args = [text, "--max-length", "5", "--on-long", "truncate"];
        let ran = embed(dir, &args, b"");
        (ran.stdout, ran.stderr.contains("truncated 1 of 1 texts to 5 tokens"))
    };
    let cut = short("the cat", &dir);
    assert!(cut.1 && cut == short("query: the cat", &fixture(TINY)));

    let (json, text) = info(&dir);
    assert_eq!((&json["prompts"], &json["default_prompt_name"]), (&prompts, &json!("query")));
    let line = "prompts      passage `passage: `, query `query: `; default: query\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(info(&fixture(TINY)).0["prompts"], json!({}));
}

#[test]
fn unusable_prompts_are_refused() {
    let (_place, dir) = prompted(&json!({"prompts": {"a": "b"}, "default_prompt_name": "c"}));
    let says = &["config_sentence_transformers.json", "`c`", "`a`"];
    embed(&dir, &["a"], b"").refused("an unknown default", 66, says);
    let declared = json!({"prompts": {"query": "query: "}, "default_prompt_name": "query"});
    let (_place, dir) = prompted(&declared);
    edit(&dir.join("1_Pooling/config.json"), |config| config["include_prompt"] = json!(false));
    embed(&dir, &["a"], b"").refused("left out", 2, &["include_prompt false", "`query: `"]);
    assert!(vectors(&dir, &["--no-prompt"]) == vectors(&fixture(TINY), &[]));
    let (json, text) = info(&dir);
    assert_eq!(json["include_prompt"], json!(false));
    assert!(text.contains("pooling      mean without the prompt, not normalised\n"), "{text}");
    let (_place, dir) = copy("tiny-reranker-bpe");
    put(&dir, "config_sentence_transformers.json", &declared);
    let mut rerank = jinabert(&["rerank", "a", "b", "--model"]);
    let found = run(rerank.arg(&dir), b"").output("a reranker's texts have none");
    let mut rerank = jinabert(&["rerank", "a", "b", "--model"]);
    assert!(run(rerank.arg(fixture("tiny-reranker-bpe")), b"").output("as it was") == found);
}

#[test]
fn the_declared_length_is_the_limit() {
    let (_place, dir) = copy(TINY);
    let long = "a ".repeat(30);
    let refused = |limit: &str| {
        let says = format!("32 tokens, over the limit of {limit}");
        embed(&dir, &[&long], b"").refused(limit, 65, &[&says]);
    };
    put(&dir, "tokenizer_config.json", &json!({"model_max_length": 20}));
    refused("20");
    assert!(info(&dir).1.contains("max length   20 (model_max_length)\n"));
    put(&dir, "sentence_bert_config.json", &json!({"max_seq_length": 16, "do_lower_case": false}));
    refused("16");
    let (json, text) = info(&dir);
    assert_eq!((&json["max_length"], &json["max_position_embeddings"]), (&json!(16), &json!(1024)));
    assert!(text.contains("max length   16 (max_seq_length)\n"), "{text}");
    embed(&dir, &[&long, "--max-length", "64"], b"").output("as asked");
    // The declared length applies, even if it exceeds max_position_embeddings.
    put(&dir, "sentence_bert_config.json", &json!({"max_seq_length": 2048}));
    assert_eq!(info(&dir).0["max_length"], json!(2048));
    embed(&dir, &[&"a ".repeat(1100)], b"").output("beyond the positions");
    put(&dir, "sentence_bert_config.json", &json!({"max_seq_length": 0}));
    let says = &["sentence_bert_config.json", "max_seq_length: expected 1 or more tokens, got 0"];
    embed(&dir, &["a"], b"").refused("nothing", 66, says);
}

#[test]
fn a_byte_order_mark_before_json_is_skipped() {
    for name in [TINY, "tiny-sharded"] {
        let (_place, dir) = copy(name);
        copy_model(&fixture(name), &dir);
        put(&dir, "modules.json", &json!([{"path": "p", "type": "a.Pooling"}]));
        fs::create_dir(dir.join("p")).expect("writable");
        put(&dir, "p/config.json", &json!({"pooling_mode": "cls"}));
        put(&dir, "config_sentence_transformers.json", &json!({"prompts": {"q": "q: "}}));
        put(&dir, "sentence_bert_config.json", &json!({"max_seq_length": 99}));
        put(&dir, "tokenizer_config.json", &json!({"model_max_length": 100}));
        let expected = (vectors(&dir, &["--prompt-name", "q"]), info(&dir).0);
        let below = ["p/config.json".to_owned()];
        for file in names(&dir).iter().filter(|name| name.ends_with(".json")).chain(&below) {
            let path = dir.join(file);
            let text = fs::read(&path).expect("a file");
            fs::write(&path, ["\u{feff}".as_bytes(), &text].concat()).expect("writable");
        }
        assert!((vectors(&dir, &["--prompt-name", "q"]), info(&dir).0) == expected, "{name}");
    }
}

#[test]
fn keys_without_a_value_and_numbers_for_names_are_taken() {
    let (_place, dir) = copy("tiny-natural");
    let expected = embed(&dir, &["a"], b"").output("as it is");
    for keys in [
        json!({"id2label": null, "label2id": null, "type_vocab_size": null, "layer_norm_eps": null,
            "hidden_act": null, "use_qk_norm": null, "max_position_embeddings": null}),
        json!({"id2label": {"0": 0, "1": 1}, "label2id": {"0": 0, "1": 1}}),
        json!({"hidden_size": 64.0, "num_hidden_layers": 1.0, "vocab_size": 400.0}),
    ] {
        let (_place, dir) = copy("tiny-natural");
        edit(&dir.join("config.json"), |config| {
            for (key, value) in keys.as_object().expect("keys") {
                config[key] = value.clone();
            }
        });
        assert!(embed(&dir, &["a"], b"").output("taken") == expected, "{keys}");
    }
}
