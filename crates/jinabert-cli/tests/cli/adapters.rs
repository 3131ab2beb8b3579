//! jina-embeddings-v3: tasks, their adapters and instructions in each layout, and what is refused.

use crate::kit::{Stored, arg, edit, embed, fixture, jinabert, names, run};
use crate::tasks::{cases, lines, near};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Copy of a fixture, its folders included.
fn copy(name: &str) -> (TempDir, PathBuf) {
    fn all(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a writable directory");
        for name in names(from) {
            let [from, to] = [from, to].map(|dir| dir.join(&name));
            if from.is_dir() {
                all(&from, &to);
            } else {
                fs::copy(from, to).expect("a copy");
            }
        }
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path().join("model");
    all(&fixture(name), &dir);
    (place, dir)
}

fn embedding(model: &Path, args: &[&str], text: &str) -> Value {
    let args = [args, &[text]].concat();
    lines(&embed(model, &args, b"").output(text)).remove(0)["embedding"].clone()
}

/// Checks a vector against the pooled one of a case, scaled to unit length.
fn equals(found: &Value, pooled: &Value, kept: usize) {
    let pooled: Vec<f64> = serde_json::from_value(pooled.clone()).expect("numbers");
    let norm = pooled[..kept].iter().map(|x| x * x).sum::<f64>().sqrt();
    let found = found.as_array().expect("a vector");
    assert_eq!(found.len(), kept);
    found.iter().zip(pooled).for_each(|(x, y)| near(x, &json!(y / norm), 5e-5));
}

#[test]
fn texts_of_a_task_have_its_adapter_and_instruction() {
    for (name, least) in
        [("v3-original", 12), ("v3-native", 12), ("v3-bf16", 12), ("v3-other-lora", 8)]
    {
        let model = fixture(name);
        let cases = cases(name);
        let mut checked = 0;
        for case in cases["cases"].as_array().expect("cases") {
            let chosen = ["sentence", "empty", "accents"].map(Value::from).contains(&case["name"]);
            let (Some(text), true) = (case["text"].as_str(), chosen) else { continue };
            let task: Vec<&str> = case["task"].as_str().map_or(vec![], |task| vec!["--task", task]);
            let d = case["expect"]["pooled"].as_array().expect("a vector").len();
            equals(&embedding(&model, &task, text), &case["expect"]["pooled"], d);
            let short = [&task[..], &["--dimensions", "32"]].concat();
            equals(&embedding(&model, &short, text), &case["expect"]["pooled"], 32);
            checked += 1;
        }
        assert!(checked >= least, "{name}: {checked} texts");
    }
}

#[test]
fn the_instruction_is_left_out_or_replaced() {
    let model = fixture("v3-original");
    let all = cases("v3-original");
    let task = ["--task", "retrieval.passage"];
    let with = |more: &[&str], text: &str| embedding(&model, &[&task, more].concat(), text);
    let own = with(&[], "a tree");
    let instruction = all["instructions"]["retrieval.passage"].as_str().expect("a text");
    assert_eq!(with(&["--no-instruction"], &format!("{instruction}a tree")), own);
    assert_eq!(with(&["--prompt", instruction], "a tree"), own);
    assert_eq!(with(&["--prompt-name", "retrieval.passage"], "a tree"), own);
    assert_ne!(with(&["--no-prompt"], "a tree"), own);
    assert_ne!(embedding(&model, &["--prompt", instruction], "a tree"), own);
}

#[test]
fn late_chunks_of_a_task_share_its_adapter() {
    let name = "v3-bf16";
    let all = cases(name);
    let mut checked = 0;
    for case in all["cases"].as_array().expect("cases") {
        let (Some(text), Some(task)) = (case["text"].as_str(), case["task"].as_str()) else {
            continue;
        };
        let pooled = &case["expect"]["pooled"];
        let d = pooled.as_array().expect("a vector").len();
        // One chunk that holds all tokens.
        let args = ["--task", task, "--late-chunking", "--chunk", "tokens:4000"];
        let found = embedding(&fixture(name), &args, text);
        if !text.trim().is_empty() {
            equals(&found, pooled, d);
            checked += 1;
        }
        if checked > 4 {
            break;
        }
    }
    assert!(checked > 4, "{checked} texts");
}

#[test]
fn unknown_tasks_and_dimensions_are_refused() {
    let refused = |model: &str, args: &[&str], says: &[&str]| {
        embed(&fixture(model), &[args, &["a"]].concat(), b"").refused(&args.join(" "), 2, says);
    };
    let five =
        ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"];
    let says = [&["task `clustering`"], &five[..]].concat();
    refused("v3-original", &["--task", "clustering"], &says);
    refused("tiny-natural", &["--task", "separation"], &["`separation`", "no tasks"]);
    let says = ["`dimensions` 20", "16, 32, 64", "matryoshka_dimensions"];
    refused("v3-original", &["--dimensions", "20"], &says);
    refused("v3-original", &["--dimensions", "65"], &["`dimensions` 65", "1 to 64"]);
    let any = ["--dimensions", "20", "--any-dimensions"];
    let found = embedding(&fixture("v3-original"), &any, "a");
    assert_eq!(found.as_array().expect("a vector").len(), 20);
}

#[test]
fn truncate_dim_of_the_model_is_the_default() {
    let (_place, dir) = copy("v3-original");
    edit(&dir.join("config.json"), |config| config["truncate_dim"] = json!(16));
    assert_eq!(embedding(&dir, &[], "a").as_array().expect("a vector").len(), 16);
    let whole = embedding(&dir, &["--dimensions", "64"], "a");
    assert_eq!(whole.as_array().expect("a vector").len(), 64);
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let refused = |name: &str, damage: &dyn Fn(&Path), says: &[&str]| {
        let (_place, dir) = copy(name);
        damage(&dir);
        embed(&dir, &["--task", "separation", "a"], b"").refused(says[0], 66, says);
    };
    let set = |file: &'static str, key: &'static str, value: Value| {
        move |dir: &Path| edit(&dir.join(file), |config| config[key] = value.clone())
    };
    let config = "config.json";
    let own = "separation/adapter_config.json";
    refused("v3-original", &set(config, "lora_alpha", json!(null)), &["lora_alpha", "got none"]);
    refused("v3-original", &set(config, "lora_rank", json!(null)), &["lora_rank", "got none"]);
    refused("v3-original", &set(config, "lora_rank", json!(0)), &["rank is 0"]);
    let says = ["lora_A", "[5, 4, 64]", "[5, 6, 64]"];
    refused("v3-original", &set(config, "lora_rank", json!(6)), &says);
    refused("v3-original", &set(config, "lora_adaptations", json!([])), &["lora_adaptations"]);
    let gone = |dir: &Path| fs::remove_dir_all(dir.join("separation")).expect("a folder");
    refused("v3-native", &gone, &["task `separation`", "separation/adapter_config.json"]);
    refused(
        "v3-native",
        &set(own, "r", json!(8)),
        &["adapter_model.safetensors", "[4, 64]", "[8, 64]"],
    );
    refused("v3-native", &set(own, "lora_alpha", json!(null)), &["lora_alpha", "got none"]);
    refused("v3-native", &set(own, "peft_type", json!("LOHA")), &["peft_type is `LOHA`"]);
    refused("v3-native", &set(own, "use_dora", json!(true)), &["use_dora is true"]);
    let renamed = |dir: &Path| {
        let path = dir.join("separation/adapter_model.safetensors");
        let mut stored = Stored::open(&path);
        let from = "roberta.encoder.layers.0.mlp.fc1.lora_A.weight";
        stored.rename(from, "roberta.encoder.layers.0.mlp.fc3.lora_A.weight");
        stored.write(&path);
    };
    refused("v3-native", &renamed, &["fc1.lora_A.weight` is missing"]);
    let says = ["LoRA adapters", "xlm-roberta-flash-absolute"];
    let (_place, dir) = copy("v3-reranker");
    edit(&dir.join(config), |config| config["lora_adaptations"] = json!(["separation"]));
    let to = dir.join("separation");
    fs::create_dir(&to).expect("a writable directory");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(fixture("v3-native/separation").join(name), to.join(name)).expect("a copy");
    }
    embed(&dir, &["a"], b"").refused("another graph", 66, &says);
}

/// transformers 5 saves the base without a prefix and without `lora_*`; PEFT names the adapters'
/// tensors by the modules in memory, with factors of their own for queries, keys and values.
#[test]
fn adapters_saved_by_peft_are_read() {
    let (_place, dir) = copy("v3-native");
    edit(&dir.join("config.json"), |config| {
        let keys = config.as_object_mut().expect("an object");
        keys.retain(|key, _| !key.starts_with("lora_") && key != "rotary_emb_base");
        keys.insert(
            "rope_parameters".into(),
            json!({"rope_type": "default", "rope_theta": 20000.0}),
        );
    });
    let rename = |path: PathBuf, new: &dyn Fn(&str) -> String| {
        let mut stored = Stored::open(&path);
        let header = std::mem::take(&mut stored.header);
        stored.header = header.into_iter().map(|(name, of)| (new(&name), of)).collect();
        stored.write(&path);
    };
    rename(dir.join("model.safetensors"), &|name| name.replace("roberta.", ""));
    for task in
        ["retrieval_query", "retrieval_passage", "separation", "classification", "text_matching"]
    {
        rename(dir.join(task).join("adapter_model.safetensors"), &|name| {
            let name = name.replace("roberta.encoder.", "roberta.");
            let name = name.replace("mixer.out_proj", "self_attn.o_proj");
            name.replace("roberta.", "base_model.model.")
        });
    }
    let text = "How do I prune an old apple tree?";
    for task in ["retrieval.query", "text-matching"] {
        let expected = embedding(&fixture("v3-native"), &["--task", task], text);
        assert_eq!(embedding(&dir, &["--task", task], text), expected, "{task}");
    }
}

#[test]
fn queries_keys_and_values_may_have_factors_of_their_own() {
    let (_place, dir) = copy("v3-native");
    let path = dir.join("separation/adapter_model.safetensors");
    let mut stored = Stored::open(&path);
    // Twice A and half of B for the keys: the same product from another A.
    for (factor, by) in [("lora_A", 2.0_f32), ("lora_B", 0.5)] {
        let name = format!("roberta.encoder.layers.1.self_attn.k_proj.{factor}.weight");
        let (start, end) = stored.range(&name);
        for bytes in stored.data[start..end].chunks_exact_mut(4) {
            let x = f32::from_le_bytes(bytes.try_into().expect("4 bytes")) * by;
            bytes.copy_from_slice(&x.to_le_bytes());
        }
    }
    stored.write(&path);
    let text = "How do I prune an old apple tree?";
    let args = ["--task", "separation"];
    let [found, expected] = [&dir, &fixture("v3-native")].map(|dir| embedding(dir, &args, text));
    let pairs =
        found.as_array().expect("a vector").iter().zip(expected.as_array().expect("a vector"));
    pairs.for_each(|(a, b)| near(a, b, 1e-5));
}

#[test]
fn info_names_the_tasks() {
    let output = |more: &[&str]| {
        let model = fixture("v3-native");
        let args = [&["info", "--model", arg(&model)], more].concat();
        run(&mut jinabert(&args), b"").output("info")
    };
    let text = String::from_utf8(output(&[])).expect("UTF-8");
    assert!(
        text.contains("retrieval.passage `Represent the document for retrieval: `, separation,")
    );
    assert!(text.contains("trained for 16, 32, 64") && text.contains("adapter_model.safetensors"));
    let json: Value = serde_json::from_slice(&output(&["--json"])).expect("JSON");
    assert_eq!(json["tasks"][2], json!({"task": "separation", "instruction": ""}));
    assert_eq!(json["matryoshka_dimensions"], json!([16, 32, 64]));
}
