//! Fuzzing of model files: for any contents, opening succeeds or gives an error; and a model that
//! opens embeds, or gives an error.  `PROPTEST_CASES` sets the number of cases for each target; the
//! default is 64.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use jinabert::{Device, Embedder, Error, Files, OnLong, Options, Task, batch::Tokens};
use proptest::{prelude::*, sample::Index, test_runner::TestCaseResult};
use serde_json::{Value, json};
use std::fs;

fn read(fixture: &str, name: &str) -> Vec<u8> {
    fs::read(common::fixture(fixture).join(name)).expect("a fixture's file")
}

/// Files of a fixture, one of them replaced.
fn files(fixture: &str, names: &[&str], name: &str, bytes: Vec<u8>) -> Files {
    let files = names.iter().filter(|other| **other != name);
    let files = files.fold(Files::memory(), |files, name| files.with(*name, read(fixture, name)));
    files.with(name, bytes)
}

const PLAIN: &[&str] = &["config.json", "model.safetensors", "tokenizer.json"];

/// Checks the property: opens the model and embeds.
fn holds(files: Files, task: Task) -> TestCaseResult {
    let options = Options {
        device: Device::Cpu,
        task,
        on_long: OnLong::Truncate,
        max_length: Some(64),
        ..Options::default()
    };
    let opened = match Embedder::open_with(files, options) {
        Ok(opened) => opened,
        Err(Error::Read { .. } | Error::Model(_) | Error::Option(_)) => return Ok(()),
        Err(error) => return Err(TestCaseError::fail(format!("opening: {error:?}"))),
    };
    if task == Task::MultiVector {
        return Ok(());
    }
    let finite = |vectors: &[jinabert::Vector]| {
        vectors.iter().all(|vector| vector.iter().all(|x| x.is_finite()))
    };
    match opened.tokens().embed(&[&Tokens::new(vec![2, 5, 3])]) {
        Ok(vectors) => prop_assert!(finite(&vectors)),
        Err(Error::Input { .. } | Error::NotFinite(_) | Error::TooLong { .. }) => {}
        Err(error) => return Err(TestCaseError::fail(format!("ids: {error:?}"))),
    }
    match opened.embed(&["a cat", "", "Ünïcode \u{1f980} \0"]) {
        Ok(vectors) => prop_assert!(finite(&vectors)),
        Err(Error::Input { .. } | Error::NotFinite(_) | Error::Option(_) | Error::Model(_)) => {}
        Err(error) => return Err(TestCaseError::fail(format!("texts: {error:?}"))),
    }
    Ok(())
}

// ---- Damage ----

#[derive(Clone, Debug)]
enum Damage {
    /// Changes a byte.
    Set(Index, u8),
    /// Removes the end.
    Cut(Index),
    /// Removes bytes in the middle.
    Drop(Index, u8),
    /// Repeats bytes.
    Repeat(Index, u8),
    /// Inserts other bytes.
    Insert(Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        6 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, n)| Damage::Drop(at, n)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, n)| Damage::Repeat(at, n)),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ];
    prop::collection::vec(one, 1..4)
}

/// Damages the first `most` bytes.
fn damaged(mut bytes: Vec<u8>, most: usize, damage: &[Damage]) -> Vec<u8> {
    let rest = bytes.split_off(most.min(bytes.len()));
    let mut whole = true;
    for one in damage {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        let range = |at: &Index, n: u8| {
            let start = at.index(len);
            start..(start + usize::from(n)).min(len)
        };
        match one {
            Damage::Set(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Cut(at) => {
                bytes.truncate(at.index(len));
                whole = false;
            }
            Damage::Drop(at, n) => drop(bytes.drain(range(at, *n))),
            Damage::Repeat(at, n) => {
                let range = range(at, *n);
                let again = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, again);
            }
            Damage::Insert(at, new) => {
                let at = at.index(len);
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
    if whole {
        bytes.extend(rest);
    }
    bytes
}

/// Unexpected JSON values.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1)),
        Just(json!(3)),
        Just(json!(4294967296u64)),
        Just(json!(u64::MAX)),
        Just(json!(1e308)),
        Just(json!(0.5)),
        Just(json!("")),
        Just(json!("alibi")),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[]]])),
        Just(json!(true)),
        Just(json!(false)),
        any::<u32>().prop_map(|n| json!(n)),
        any::<String>().prop_map(|s| json!(s)),
    ]
}

/// Replaces one of the nested values by `odd`, or removes it.
fn replaced(value: &mut Value, at: Index, odd: Option<Value>) {
    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(all) => all.iter().map(count).sum(),
            Value::Object(all) => all.values().map(count).sum(),
            _ => 0,
        }
    }
    fn put(value: &mut Value, n: &mut usize, odd: &mut Option<Option<Value>>) {
        // Finds the n-th value below this one.
        match value {
            Value::Array(all) => {
                for place in 0..all.len() {
                    if odd.is_none() {
                        return;
                    }
                    if *n == 0 {
                        match odd.take().flatten() {
                            Some(new) => all[place] = new,
                            None => drop(all.remove(place)),
                        }
                        return;
                    }
                    *n -= 1;
                    put(&mut all[place], n, odd);
                }
            }
            Value::Object(all) => {
                for key in all.keys().cloned().collect::<Vec<_>>() {
                    if odd.is_none() {
                        return;
                    }
                    if *n == 0 {
                        match odd.take().flatten() {
                            Some(new) => drop(all.insert(key, new)),
                            None => drop(all.remove(&key)),
                        }
                        return;
                    }
                    *n -= 1;
                    put(all.get_mut(&key).expect("its own key"), n, odd);
                }
            }
            _ => {}
        }
    }
    let values = count(value) - 1;
    if values > 0 {
        put(value, &mut at.index(values), &mut Some(odd));
    }
}

fn reworded(bytes: &[u8], changes: Vec<(Index, Option<Value>)>) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).expect("a fixture's JSON");
    for (at, odd) in changes {
        replaced(&mut value, at, odd);
    }
    serde_json::to_vec(&value).expect("made of JSON")
}

fn changes() -> impl Strategy<Value = Vec<(Index, Option<Value>)>> {
    prop::collection::vec((any::<Index>(), prop::option::weighted(0.85, odd())), 1..4)
}

/// Number of bytes of the length and the header.
fn header(safetensors: &[u8]) -> usize {
    let length = safetensors[..8].try_into().expect("eight bytes");
    8 + u64::from_le_bytes(length) as usize
}

fn cases() -> ProptestConfig {
    let set = std::env::var("PROPTEST_CASES").is_ok();
    let usual = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if set { usual } else { ProptestConfig { cases: 64, ..usual } }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn config(damage in damage()) {
        let bytes = read("tiny-natural", "config.json");
        let bytes = damaged(bytes, usize::MAX, &damage);
        holds(files("tiny-natural", PLAIN, "config.json", bytes), Task::Embed)?;
    }

    #[test]
    fn config_values(changes in changes()) {
        let bytes = reworded(&read("tiny-natural", "config.json"), changes);
        holds(files("tiny-natural", PLAIN, "config.json", bytes), Task::Embed)?;
    }

    #[test]
    fn safetensors_header(damage in damage()) {
        let bytes = read("tiny-natural", "model.safetensors");
        let most = header(&bytes);
        let bytes = damaged(bytes, most, &damage);
        holds(files("tiny-natural", PLAIN, "model.safetensors", bytes), Task::Embed)?;
    }

    #[test]
    fn safetensors_header_values(changes in changes()) {
        let bytes = read("tiny-natural", "model.safetensors");
        let most = header(&bytes);
        let header = reworded(&bytes[8..most], changes);
        let length = (header.len() as u64).to_le_bytes();
        let bytes = [&length, &header[..], &bytes[most..]].concat();
        holds(files("tiny-natural", PLAIN, "model.safetensors", bytes), Task::Embed)?;
    }

    #[test]
    fn safetensors_values(damage in damage()) {
        let bytes = read("tiny-natural", "model.safetensors");
        let bytes = damaged(bytes, usize::MAX, &damage);
        holds(files("tiny-natural", PLAIN, "model.safetensors", bytes), Task::Embed)?;
    }

    #[test]
    fn tokenizer(damage in damage()) {
        let bytes = damaged(read("tiny-natural", "tokenizer.json"), usize::MAX, &damage);
        holds(files("tiny-natural", PLAIN, "tokenizer.json", bytes), Task::Embed)?;
    }

    #[test]
    fn tokenizer_values(changes in changes()) {
        let bytes = reworded(&read("tiny-natural", "tokenizer.json"), changes);
        holds(files("tiny-natural", PLAIN, "tokenizer.json", bytes), Task::Embed)?;
    }

    #[test]
    fn shards(changes in changes()) {
        const NAME: &str = "model.safetensors.index.json";
        let bytes = read("tiny-sharded", NAME);
        let list: Value = serde_json::from_slice(&bytes).expect("JSON");
        let shards = list["weight_map"].as_object().expect("a map").values();
        let shards = shards.map(|name| name.as_str().expect("a name").to_owned());
        let mut names: Vec<String> = shards.collect();
        names.extend(["config.json", NAME].map(str::to_owned));
        names.sort();
        names.dedup();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        holds(files("tiny-sharded", &names, NAME, reworded(&bytes, changes)), Task::Embed)?;
    }

    #[test]
    fn settings_of_queries(text in "\\PC*", changes in changes(), as_json: bool) {
        let names = &[PLAIN, &["artifact.metadata"]].concat();
        let usual = json!({"query_maxlen": 32, "attend_to_mask_tokens": false, "config": {}});
        let json = reworded(usual.to_string().as_bytes(), changes);
        let bytes = if as_json { json } else { text.into_bytes() };
        holds(files("tiny-colbert", names, "artifact.metadata", bytes), Task::MultiVector)?;
    }
}
