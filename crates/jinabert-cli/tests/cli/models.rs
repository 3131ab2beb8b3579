//! Model directories with missing files, damaged, or of another kind.

use crate::kit::{
    Ran, arg, configure, copy, edit, embed, names, natural, rewrite, weights, write_raw,
};
use serde_json::json;
use std::{fs, path::Path};

/// Damage to a copy of a fixture, and parts of the message; the exit code is 66.
struct Fault {
    name: &'static str,
    fixture: &'static str,
    damage: fn(&Path),
    says: &'static [&'static str],
}

const fn fault(name: &'static str, damage: fn(&Path), says: &'static [&'static str]) -> Fault {
    Fault { name, fixture: "tiny-natural", damage, says }
}

const fn sharded(name: &'static str, damage: fn(&Path), says: &'static [&'static str]) -> Fault {
    Fault { name, fixture: "tiny-sharded", damage, says }
}

const fn original(name: &'static str, damage: fn(&Path), says: &'static [&'static str]) -> Fault {
    Fault { name, fixture: "tiny-original", damage, says }
}

/// Runs a damaged model, with an output file that must not appear.
fn run_damaged(fault: &Fault) -> Ran {
    let (place, dir) = copy(fault.fixture);
    (fault.damage)(&dir);
    let out = place.path().join("out");
    fs::create_dir(&out).expect("a writable directory");
    let ran = embed(&dir, &["a", "--output", arg(&out.join("vectors.json"))], b"");
    assert!(names(&out).is_empty(), "{}: {:?}", fault.name, names(&out));
    ran
}

fn refuse(faults: &[Fault]) {
    for fault in faults {
        run_damaged(fault).refused(fault.name, 66, fault.says);
    }
}

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).expect("a file");
}

fn put(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a writable directory");
}

/// Removes a key from `config.json`.
fn unset(dir: &Path, key: &str) {
    edit(&dir.join("config.json"), |config| {
        assert!(config.as_object_mut().expect("an object").remove(key).is_some(), "{key}");
    });
}

/// Replaces a file by a directory.
fn dir_for_file(dir: &Path, name: &str) {
    remove(dir, name);
    fs::create_dir(dir.join(name)).expect("a writable directory");
}

/// Truncates a file to `size` of its length.
fn cut(path: &Path, size: fn(u64) -> u64) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    let length = file.metadata().expect("a file").len();
    file.set_len(size(length)).expect("a writable file");
}

const SHARD: &str = "model-00002-of-00003.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn missing_and_empty_files_are_named() {
    refuse(&[
        fault("no directory", |dir| fs::remove_dir_all(dir).expect("it"), &["config.json"]),
        fault("no config", |dir| remove(dir, "config.json"), &["cannot read", "config.json"]),
        fault("no weights", |dir| remove(dir, "model.safetensors"), &["model.safetensors`"]),
        sharded("no shard", |dir| remove(dir, SHARD), &["cannot read", SHARD]),
        fault("empty config", |dir| put(dir, "config.json", ""), &["config.json", "EOF"]),
        fault("empty weights", |dir| cut(&weights(dir), |_| 0), &["model.safetensors", "whole"]),
        sharded("empty shard", |dir| cut(&dir.join(SHARD), |_| 0), &[SHARD, "whole"]),
        sharded("empty index", |dir| put(dir, INDEX, ""), &[INDEX, "EOF"]),
        fault("empty tokenizer", |dir| put(dir, "tokenizer.json", ""), &["tokenizer.json"]),
    ]);
}

#[test]
fn directories_for_files_are_named() {
    refuse(&[
        fault("config", |dir| dir_for_file(dir, "config.json"), &["config.json"]),
        fault(
            "weights",
            |dir| dir_for_file(dir, "model.safetensors"),
            &["model.safetensors", "not a regular file"],
        ),
        fault("tokenizer", |dir| dir_for_file(dir, "tokenizer.json"), &["tokenizer.json"]),
        sharded("shard", |dir| dir_for_file(dir, SHARD), &[SHARD, "not a regular file"]),
        sharded("index", |dir| dir_for_file(dir, INDEX), &[INDEX]),
    ]);
}

/// Opening a pipe would wait for a writer that does not exist.
#[cfg(unix)]
#[test]
fn pipes_for_files_are_named() {
    let (_place, dir) = copy("tiny-natural");
    remove(&dir, "model.safetensors");
    let made = std::process::Command::new("mkfifo").arg(weights(&dir)).status();
    assert!(made.expect("mkfifo").success());
    embed(&dir, &["a"], b"").refused("a pipe", 66, &["model.safetensors", "not a regular file"]);
}

#[test]
fn files_for_directories_are_named() {
    let file = natural().join("config.json");
    embed(&file, &["a"], b"").refused("a file as the model", 66, &["cannot read", "config.json"]);
}

#[test]
fn damaged_safetensors_are_refused() {
    const SAYS: &[&str] = &["model.safetensors` is not a whole safetensors file"];
    type Damage = (&'static str, fn(&Path));
    const DAMAGES: &[Damage] = &[
        ("cut in the length", |path| cut(path, |_| 4)),
        ("cut in the header", |path| cut(path, |_| 100)),
        ("cut in the data", |path| cut(path, |size| size - 1)),
        ("cut after the header", |path| cut(path, |_| 8 + 1960)),
        ("more than the header says", |path| cut(path, |size| size + 1)),
        ("length u64::MAX", |path| write_raw(path, u64::MAX, b"{}", b"")),
        ("length over i64::MAX", |path| write_raw(path, 1 << 63, b"{}", b"")),
        ("length 200 MB", |path| write_raw(path, 200_000_000, b"{}", b"")),
        ("length 90 MB", |path| write_raw(path, 90_000_000, b"{}", b"")),
        ("length one too many", |path| write_raw(path, 3, b"{}", b"")),
        ("not JSON", |path| write_raw(path, 4, b"nope", b"")),
        ("not an object", |path| write_raw(path, 2, b"[]", b"")),
        ("not UTF-8", |path| write_raw(path, 4, b"{\"\xff\"", b"")),
        ("no tensor at all but bytes", |path| write_raw(path, 2, b"{}", b"1234")),
        ("nested without end", |path| {
            write_raw(path, 1_000_000, "[".repeat(1_000_000).as_bytes(), b"");
        }),
    ];
    for &(name, damage) in DAMAGES {
        let (_place, dir) = copy("tiny-natural");
        damage(&weights(&dir));
        embed(&dir, &["a"], b"").refused(name, 66, SAYS);
    }
}

/// Tensor of the fixture, \[128, 64\].
const GATED: &str = "encoder.layer.0.mlp.gated_layers.weight";
const GAMMA: &str = "encoder.layer.0.mlp.layernorm.weight";

fn set(dir: &Path, tensor: &str, key: &str, value: serde_json::Value) {
    rewrite(dir, |stored| stored.header[tensor][key] = value);
}

/// Moves both offsets of a tensor.
fn shift(dir: &Path, by: i64) {
    rewrite(dir, |stored| {
        let (start, end) = stored.range(GATED);
        let moved = json!([start as i64 + by, end as i64 + by]);
        stored.header[GATED]["data_offsets"] = moved;
    });
}

#[test]
fn inconsistent_headers_are_refused() {
    const WHOLE: &[&str] = &["model.safetensors` is not a whole safetensors file"];
    refuse(&[
        fault("offsets past the end", |dir| shift(dir, 1 << 40), WHOLE),
        fault("overlapping offsets", |dir| shift(dir, -64), WHOLE),
        fault("a gap", |dir| shift(dir, 4), WHOLE),
        fault("end first", |dir| set(dir, GATED, "data_offsets", json!([4096, 0])), WHOLE),
        fault("negative", |dir| set(dir, GATED, "data_offsets", json!([-4, 0])), WHOLE),
        fault("more elements", |dir| set(dir, GATED, "shape", json!([129, 64])), WHOLE),
        fault("overflow", |dir| set(dir, GATED, "shape", json!([u64::MAX, 2])), WHOLE),
        fault("overflow to 0", |dir| set(dir, GATED, "shape", json!([1_u64 << 63, 2])), WHOLE),
        fault("unknown type", |dir| set(dir, GATED, "dtype", json!("F7")), WHOLE),
    ]);
}

/// Overwrites an element.
fn poke(dir: &Path, tensor: &str, element: usize, value: &[u8]) {
    rewrite(dir, |stored| {
        let at = stored.range(tensor).0 + element * value.len();
        stored.data[at..at + value.len()].copy_from_slice(value);
    });
}

fn add(dir: &Path, name: &str) {
    rewrite(dir, |stored| stored.push(name, "F32", &[1], &[0; 4]));
}

#[test]
fn invalid_tensors_are_refused() {
    let f16 = |name, damage, says| Fault { name, fixture: "tiny-f16", damage, says };
    refuse(&[
        fault(
            "integers",
            |dir| {
                rewrite(dir, |stored| {
                    stored.remove(GAMMA);
                    stored.push(GAMMA, "I64", &[64], &[0; 512]);
                });
            },
            &[GAMMA, "I64", "F32, F16, BF16"],
        ),
        fault("missing", |dir| rewrite(dir, |stored| stored.remove(GAMMA)), &[GAMMA, "missing"]),
        fault(
            "transposed",
            |dir| set(dir, GATED, "shape", json!([64, 128])),
            &[GATED, "[64, 128]", "[128, 64]"],
        ),
        fault("flat", |dir| set(dir, GATED, "shape", json!([8192])), &["[8192]", "[128, 64]"]),
        fault("unknown", |dir| add(dir, "encoder.extra"), &["1 unknown", "`encoder.extra`"]),
        fault("twice", |dir| add(dir, &format!("bert.{GAMMA}")), &[GAMMA, "twice"]),
        fault(
            "NaN",
            |dir| poke(dir, GATED, 5, &f32::NAN.to_le_bytes()),
            &[GATED, "NaN at element 5"],
        ),
        fault(
            "infinite",
            |dir| poke(dir, GAMMA, 63, &f32::NEG_INFINITY.to_le_bytes()),
            &[GAMMA, "-inf at element 63"],
        ),
        f16(
            "infinite in f16",
            |dir| poke(dir, GATED, 7, &half::f16::INFINITY.to_le_bytes()),
            &[GATED, "inf at element 7"],
        ),
        fault(
            "no gate where the config says one",
            |dir| {
                let dense = "encoder.layer.0.intermediate.dense.weight";
                rewrite(dir, |stored| stored.rename(GATED, dense));
            },
            &["feed_forward_type is `geglu`", "`jina-bert-original`", "intermediate.dense.weight"],
        ),
        original(
            "a BERT's MLP without alibi",
            |dir| unset(dir, "position_embedding_type"),
            &["a BERT", "position_embedding_type is `alibi`", "not supported"],
        ),
        original(
            "a position table of another shape",
            |dir| {
                unset(dir, "position_embedding_type");
                add(dir, "embeddings.position_embeddings.weight");
            },
            &["tensor `embeddings.position_embeddings.weight`"],
        ),
        original(
            "a bias that is not there",
            |dir| {
                let bias = "encoder.layer.1.intermediate.dense.bias";
                rewrite(dir, |stored| stored.remove(bias));
            },
            &["tensor `encoder.layer.1.intermediate.dense.bias` is missing"],
        ),
        fault(
            "a BERT's positions",
            |dir| add(dir, "embeddings.position_embeddings.weight"),
            &["no encoder of a known architecture"],
        ),
        fault(
            "neither graph",
            |dir| {
                rewrite(dir, |stored| stored.rename(GATED, "encoder.layer.0.mlp.devlin.weight"));
            },
            &[
                "no encoder of a known architecture",
                "encoder.layer.{i}.attention.output.LayerNorm.bias",
            ],
        ),
        fault(
            "norms of another graph",
            |dir| add(dir, "encoder.layer.0.attention.self.layer_norm_q.weight"),
            &["1 unknown", "`jina-bert`", "encoder.layer.{i}.attention.self.layer_norm_q.weight"],
        ),
        fault(
            "another network",
            |dir| write_raw(&weights(dir), 2, b"{}", b""),
            &["no encoder of a known architecture"],
        ),
    ]);
}

/// Assigns one tensor of the index to a file.
fn send(dir: &Path, tensor: &str, file: &str) {
    edit(&dir.join(INDEX), |index| index["weight_map"][tensor] = json!(file));
}

#[test]
fn invalid_shard_indices_are_refused() {
    const HERE: &str = "is not the name of a file beside it";
    refuse(&[
        sharded("above", |dir| send(dir, GATED, "../x"), &[INDEX, "`../x`", HERE]),
        sharded("below", |dir| send(dir, GATED, "x/y"), &[INDEX, "`x/y`", HERE]),
        sharded("absolute", |dir| send(dir, GATED, "/etc/passwd"), &["`/etc/passwd`", HERE]),
        sharded("nothing", |dir| send(dir, GATED, ""), &["``", HERE]),
        sharded("this", |dir| send(dir, GATED, "."), &["`.`", HERE]),
        sharded(
            "the wrong shard",
            |dir| send(dir, "encoder.x", SHARD),
            &["`encoder.x`", "it is not there"],
        ),
        sharded("no such shard", |dir| send(dir, GATED, "x.bin"), &["cannot read", "x.bin"]),
        sharded("not JSON", |dir| put(dir, INDEX, "nope"), &[INDEX, "expected"]),
        sharded("no map", |dir| put(dir, INDEX, "{}"), &[INDEX, "weight_map"]),
        sharded("empty map", |dir| put(dir, INDEX, "{\"weight_map\": {}}"), &["tensors"]),
    ]);
}

#[test]
fn invalid_configs_are_refused() {
    let two = |name, damage, says| Fault { name, fixture: "tiny-geglu-4h", damage, says };
    refuse(&[
        fault(
            "a larger vocabulary",
            |dir| configure(dir, "vocab_size", json!(401)),
            &["word_embeddings", "[400, 64]", "[401, 64]"],
        ),
        fault("types", |dir| configure(dir, "type_vocab_size", json!(3)), &["[2, 64]", "[3, 64]"]),
        fault("width", |dir| configure(dir, "hidden_size", json!(32)), &["[400, 64]", "[400, 32]"]),
        fault("mlp", |dir| configure(dir, "intermediate_size", json!(32)), &[GATED, "[64, 64]"]),
        two(
            "fewer layers than stored",
            |dir| configure(dir, "num_hidden_layers", json!(1)),
            &["encoder.layer.1.", "unknown", "1 layers"],
        ),
        two(
            "more layers than stored",
            |dir| configure(dir, "num_hidden_layers", json!(1000)),
            &["encoder.layer.2.", "missing"],
        ),
        fault(
            "heads",
            |dir| configure(dir, "num_attention_heads", json!(3)),
            &["hidden_size 64", "num_attention_heads 3"],
        ),
        fault("no head", |dir| configure(dir, "num_attention_heads", json!(0)), &["heads is 0"]),
        fault("huge", |dir| configure(dir, "vocab_size", json!(u32::MAX)), &["vocab_size is 4"]),
        fault("negative", |dir| configure(dir, "vocab_size", json!(-1)), &["invalid value"]),
        fault("a string", |dir| configure(dir, "hidden_size", json!("64")), &["invalid type"]),
        fault("not JSON", |dir| put(dir, "config.json", "nope"), &["config.json", "expected"]),
        fault("not an object", |dir| put(dir, "config.json", "null"), &["config.json"]),
        fault("no keys", |dir| put(dir, "config.json", "{}"), &["missing field `hidden_size`"]),
        fault(
            "a plain BERT",
            |dir| configure(dir, "position_embedding_type", json!("absolute")),
            &["position_embedding_type is `absolute`", "`jina-bert`, which has `alibi`"],
        ),
        fault("another act", |dir| configure(dir, "hidden_act", json!("relu")), &["`relu`"]),
        fault(
            "an ungated MLP",
            |dir| configure(dir, "feed_forward_type", json!("original")),
            &["feed_forward_type is `original`", "`jina-bert`", "mlp.gated_layers.weight"],
        ),
        fault(
            "another MLP",
            |dir| configure(dir, "feed_forward_type", json!("swiglu")),
            &["feed_forward_type is `swiglu`", "`geglu`, `reglu`, `original`"],
        ),
    ]);
}

#[test]
fn broken_tokenizers_are_named() {
    const SAYS: &[&str] = &["bad model", "tokenizer.json"];
    refuse(&[
        fault("not JSON", |dir| put(dir, "tokenizer.json", "nope"), SAYS),
        fault("not UTF-8", |dir| fs::write(dir.join("tokenizer.json"), b"\xff").expect("it"), SAYS),
        fault("an array", |dir| put(dir, "tokenizer.json", "[]"), SAYS),
        fault("no model", |dir| put(dir, "tokenizer.json", "{}"), SAYS),
        fault("cut", |dir| cut(&dir.join("tokenizer.json"), |size| size / 2), SAYS),
        fault(
            "an unknown model",
            |dir| edit(&dir.join("tokenizer.json"), |file| file["model"]["type"] = json!("X")),
            SAYS,
        ),
    ]);
}

#[test]
fn without_a_tokenizer_only_ids_work() {
    let (_place, dir) = copy("tiny-natural");
    let ids = b"{\"ids\": [2, 28, 3]}";
    let expected = embed(&dir, &["--input-format", "jsonl"], ids).output("with one");
    remove(&dir, "tokenizer.json");
    embed(&dir, &["a"], b"").refused("a text", 2, &["tokenizer.json", "only token ids"]);
    assert_eq!(embed(&dir, &["--input-format", "jsonl"], ids).output("ids"), expected);
    assert_eq!(embed(&natural(), &["a"], b"").output("the text"), expected);
}

#[test]
fn a_token_that_the_model_lacks_is_named() {
    let (_place, dir) = copy("tiny-natural");
    let words = "embeddings.word_embeddings.weight";
    configure(&dir, "vocab_size", json!(20));
    rewrite(&dir, |stored| {
        stored.remove(words);
        stored.push(words, "F32", &[20, 64], &[0; 20 * 64 * 4]);
    });
    let says = &["text 2", "id 28", "20 rows"];
    embed(&dir, &["", "a"], b"").refused("a small vocabulary", 65, says);
}
