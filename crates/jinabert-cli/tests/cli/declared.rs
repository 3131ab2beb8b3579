//! Declarations in the files of sentence-transformers: pooling, prompts, lengths.

use crate::kit::{Stored, arg, copy, copy_model, edit, embed, fixture, jinabert, names, run};
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
        (json!("median"), "`median`"),
        (json!(["cls", "mean"]), "`cls + mean`"),
        (json!(3), "pooling_mode: expected"),
    ] {
        let (_place, dir) = pooled("1_Pooling", Some(one_word(mode.clone())));
        embed(&dir, &["a"], b"").refused(says, 66, &[says]);
    }
}

/// Last hidden states of a text.
fn states(dir: &Path, text: &str) -> Vec<Vec<f64>> {
    let found = embed(dir, &["--pooling", "none", text], b"").output("states");
    let line: Value = serde_json::from_slice(&found).expect("JSON");
    serde_json::from_value(line["embeddings"].clone()).expect("rows")
}

/// The vector of a text, and whether it is near another one.
fn near(dir: &Path, args: &[&str], text: &str, expected: &[f64]) {
    let found = embed(dir, &[args, &[text]].concat(), b"").output(text);
    let line: Value = serde_json::from_slice(&found).expect("JSON");
    let found: Vec<f64> = serde_json::from_value(line["embedding"].clone()).expect("numbers");
    assert_eq!(found.len(), expected.len());
    let far = found.iter().zip(expected).find(|(a, b)| (*a - *b).abs() > 2e-5);
    assert!(far.is_none(), "{args:?}: {far:?}");
}

#[test]
fn every_pooling_of_sentence_transformers_is_computed() {
    let text = "the cat sat on the mat";
    let rows = states(&fixture(TINY), text);
    let count = rows.len() as f64;
    let column = |n: usize| rows.iter().map(move |row| row[n]);
    let all = |of: &dyn Fn(usize) -> f64| (0..64).map(of).collect::<Vec<f64>>();
    let weights: f64 = (1..=rows.len()).map(|t| t as f64).sum();
    for (name, expected) in [
        ("max", all(&|n| column(n).fold(f64::NEG_INFINITY, f64::max))),
        ("lasttoken", rows[rows.len() - 1].clone()),
        (
            "weightedmean",
            all(&|n| column(n).zip(1..).map(|(x, t)| x * f64::from(t)).sum::<f64>() / weights),
        ),
        ("mean_sqrt_len_tokens", all(&|n| column(n).sum::<f64>() / count.sqrt())),
    ] {
        let old = format!("pooling_mode_{name}");
        for config in [json!({"pooling_mode": name}), json!({old: true})] {
            let (_place, dir) = pooled("1_Pooling", Some(config));
            near(&dir, &["--no-normalize"], text, &expected);
            assert_eq!(info(&dir).0["pooling"], name);
            let says = &["late chunks", name];
            let args = ["--late-chunking", "--chunk", "tokens:9", text];
            embed(&dir, &args, b"").refused(name, 2, says);
        }
        let (_place, dir) = pooled("1_Pooling", Some(json!({"pooling_mode": name})));
        long_texts(&dir, name);
        if name != "mean_sqrt_len_tokens" {
            near(&fixture(TINY), &["--no-normalize", "--pooling", name], text, &expected);
        }
    }
}

/// Checks the vectors of texts that are read in windows, from the windows' last hidden states.
fn long_texts(dir: &Path, pooling: &str) {
    let text = "the cat sat on the mat and the dog lay on the rug ".repeat(9);
    let windows = ["--on-long", "window", "--max-length", "40", "--overlap", "8"];
    embed(dir, &["--max-length", "40", &text], b"").refused("long", 65, &["limit of 40"]);
    let args = [&windows[..], &["--pooling", "none", &text]].concat();
    let found = embed(&fixture(TINY), &args, b"").output("states");
    let line: Value = serde_json::from_slice(&found).expect("JSON");
    let rows: Vec<Vec<f64>> = serde_json::from_value(line["embeddings"].clone()).expect("rows");
    assert!(rows.len() > 100, "{}", rows.len());
    let column = |n: usize| rows.iter().map(move |row| row[n]);
    let count = rows.len() as f64;
    let of = |n: usize| match pooling {
        "max" => column(n).fold(f64::NEG_INFINITY, f64::max),
        "lasttoken" => rows[rows.len() - 1][n],
        "weightedmean" => {
            let sum: f64 = column(n).zip(1..).map(|(x, t)| x * f64::from(t)).sum();
            sum / (count * (count + 1.0) / 2.0)
        }
        _ => column(n).sum::<f64>() / count.sqrt(),
    };
    let expected: Vec<f64> = (0..64).map(of).collect();
    near(dir, &[&windows[..], &["--no-normalize"]].concat(), &text, &expected);
}

/// Writes a module's folder: its configuration, and tensors of f32.
fn module(dir: &Path, folder: &str, config: Value, tensors: &[(&str, &[u64], Vec<f64>)]) {
    fs::create_dir(dir.join(folder)).expect("writable");
    put(dir, &format!("{folder}/config.json"), &config);
    let mut stored = Stored { header: serde_json::Map::new(), data: Vec::new() };
    for (name, shape, values) in tensors {
        let bytes: Vec<u8> = values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
        stored.push(name, "F32", shape, &bytes);
    }
    stored.write(&dir.join(folder).join("model.safetensors"));
}

#[test]
fn dense_and_layer_norm_modules_are_computed() {
    let (_place, dir) = pooled("1_Pooling", Some(json!({"pooling_mode": "mean"})));
    let st = |name: &str| format!("sentence_transformers.models.{name}");
    let modules = json!([
        {"idx": 0, "path": "", "type": st("Transformer")},
        {"idx": 1, "path": "1_Pooling", "type": st("Pooling")},
        {"idx": 2, "path": "2_LayerNorm", "type": st("LayerNorm")},
        {"idx": 3, "path": "3_Dense", "type": st("Dense")},
        {"idx": 4, "path": "4_Normalize", "type": st("Normalize")},
    ]);
    put(&dir, "modules.json", &modules);
    let wave = |n: usize, phase: f64| -> Vec<f64> {
        (0..n).map(|n| f64::from((n as f32 * 0.37 + phase as f32).sin())).collect()
    };
    let [gamma, beta] = [wave(64, 1.0), wave(64, 2.0)];
    let [w, bias] = [wave(12 * 64, 3.0), wave(12, 4.0)];
    let norm = [("norm.weight", &[64][..], gamma.clone()), ("norm.bias", &[64][..], beta.clone())];
    module(&dir, "2_LayerNorm", json!({"dimension": 64}), &norm);
    let config = |name: &str| {
        json!({"in_features": 64, "out_features": 12, "bias": true,
        "activation_function": name})
    };
    let tensors =
        [("linear.weight", &[12, 64][..], w.clone()), ("linear.bias", &[12][..], bias.clone())];
    module(&dir, "3_Dense", config("torch.nn.modules.activation.Tanh"), &tensors);

    let text = "the cat sat on the mat";
    let rows = states(&fixture(TINY), text);
    let mean: Vec<f64> =
        (0..64).map(|n| rows.iter().map(|row| row[n]).sum::<f64>() / rows.len() as f64).collect();
    let middle = mean.iter().sum::<f64>() / 64.0;
    let variance = mean.iter().map(|x| (x - middle).powi(2)).sum::<f64>() / 64.0;
    let normed: Vec<f64> = (0..64)
        .map(|n| (mean[n] - middle) / (variance + 1e-5).sqrt() * gamma[n] + beta[n])
        .collect();
    let dense = |n: usize| (0..64).map(|k| w[n * 64 + k] * normed[k]).sum::<f64>() + bias[n];
    let expected: Vec<f64> = (0..12).map(|n| dense(n).tanh()).collect();
    near(&dir, &["--no-normalize"], text, &expected);
    let unit = |x: &[f64]| {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter().map(|x| x / norm).collect::<Vec<_>>()
    };
    near(&dir, &[], text, &unit(&expected));
    near(&dir, &["--dimensions", "5"], text, &unit(&expected[..5]));
    near(&dir, &["--late-chunking", "--chunk", "tokens:100"], text, &unit(&expected));
    let windows = ["--on-long", "window", "--max-length", "64", "--overlap", "8"];
    near(&dir, &windows, text, &unit(&expected));
    embed(&dir, &["--dimensions", "13", "a"], b"").refused("width", 2, &["1 to 12"]);
    let (json, told) = info(&dir);
    assert_eq!(json["modules"], json!(["LayerNorm", "Dense"]));
    assert!(told.contains("pooling      mean, LayerNorm, Dense, then normalised\n"), "{told}");

    let refused = |config: Value, says: &[&str]| {
        put(&dir, "3_Dense/config.json", &config);
        embed(&dir, &["a"], b"").refused(says[0], 66, says);
    };
    refused(config("torch.nn.Softmax"), &["activation_function is `torch.nn.Softmax`", "Tanh"]);
    let mut other = config("torch.nn.Identity");
    other["in_features"] = json!(32);
    refused(other, &["in_features is 32", "64 components"]);
    let mut other = config("torch.nn.Identity");
    other["module_input_name"] = json!("token_embeddings");
    let says = &["3_Dense/config.json", "module_input_name: expected `sentence_embedding`"];
    refused(other, says);
    let mut other = config("torch.nn.Identity");
    other["out_features"] = json!(13);
    refused(other, &["linear.weight", "[12, 64]", "[13, 64]"]);
    put(&dir, "3_Dense/config.json", &config("torch.nn.Identity"));
    let weights = dir.join("3_Dense/model.safetensors");
    fs::rename(&weights, dir.join("3_Dense/pytorch_model.bin")).expect("writable");
    embed(&dir, &["a"], b"").refused(
        "bin",
        66,
        &["model.safetensors", "got only pytorch_model.bin"],
    );
}

#[test]
fn texts_are_lower_cased_if_the_model_says_so() {
    let (_place, dir) = copy("tiny-code-qknorm");
    let upper = |dir: &Path| embed(dir, &["--pooling", "none", "THE CAT"], b"").output("states");
    let lower = embed(&dir, &["--pooling", "none", "the cat"], b"").output("states");
    let before = upper(&dir);
    put(&dir, "sentence_bert_config.json", &json!({"do_lower_case": true}));
    assert!(upper(&dir) == lower);
    put(&dir, "sentence_bert_config.json", &json!({"do_lower_case": false}));
    assert!(upper(&dir) == before);
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
