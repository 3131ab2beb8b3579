//! Prompts that a model declares, and prompts selected by the server or a request.

use crate::kit::{Server, embedder, fixture};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

const TINY: &str = "tiny-natural";

/// Copy of a model, with prompts added.
fn model() -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(format!("{}/{name}", fixture(TINY)), place.path().join(name)).expect("a copy");
    }
    let prompts = json!({"prompts": {"query": "query: ", "passage": "passage: "},
        "default_prompt_name": "query"});
    let name = place.path().join("config_sentence_transformers.json");
    fs::write(name, prompts.to_string()).expect("writable");
    place
}

fn near(found: &Value, expected: &[f32]) -> bool {
    let found = found.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number"));
    let found: Vec<f64> = found.collect();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-5)
}

fn library(texts: &[&str]) -> Vec<Vec<f32>> {
    let vectors = embedder(&fixture(TINY)).embed(texts).expect("vectors");
    vectors.into_iter().map(|vector| vector.into_inner()).collect()
}

#[test]
fn requests_name_prompts_of_the_model() {
    let place = model();
    let dir = place.path().to_str().expect("UTF-8");
    let reranker = fixture("tiny-reranker-bpe");
    let of = library(&["the cat", "query: the cat", "passage: the cat", "passage: a", "query: a"]);
    let server = Server::start(&["--model", dir]);
    for path in ["/embed", "/"] {
        let ask = |body: Value| server.post(path, &body).ok()[0].clone();
        assert!(near(&ask(json!({"inputs": "the cat"})), &of[1]));
        assert!(near(&ask(json!({"inputs": "the cat", "prompt_name": null})), &of[1]));
        assert!(near(&ask(json!({"inputs": "the cat", "prompt_name": "passage"})), &of[2]));
        let refused = server.post(path, &json!({"inputs": "a", "prompt_name": "other"}));
        assert_eq!(refused.status, 400);
        let says = "`prompt_name` `other`: this model's prompts are `passage`, `query`";
        assert!(refused.text.contains(says), "{}", refused.text);
    }
    // Texts and their token ids, in OpenAI's dialect.
    let tokens = embedder(&fixture(TINY)).tokenize(&["the cat"]).expect("tokens");
    let ids = tokens[0].tokens.ids.clone();
    for input in [json!("the cat"), json!([ids]), json!([ids[1..ids.len() - 1]])] {
        let answer = server.post("/v1/embeddings", &json!({"input": input})).ok();
        assert!(near(&answer["data"][0]["embedding"], &of[1]), "{input}");
    }
    let late = json!({"input": ["the cat"], "late_chunking": true});
    assert!(near(&server.post("/v1/embeddings", &late).ok()["data"][0]["embedding"], &of[1]));

    let inputs = json!({"source_sentence": "the cat", "sentences": ["a"]});
    let dot = |a: &[f32], b: &[f32]| vec![a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()];
    let cosine = |parameters: Value| {
        server.post("/similarity", &json!({"inputs": inputs, "parameters": parameters})).ok()
    };
    assert!(near(&cosine(json!({})), &dot(&of[1], &of[4])));
    assert!(near(&cosine(json!({"prompt_name": "passage"})), &dot(&of[2], &of[3])));
    let count = |path: &str, body: Value| {
        server.post(path, &body).ok()[0].as_array().expect("a list").len()
    };
    let body = json!({"inputs": "the cat", "prompt_name": "passage"});
    let whole = embedder(&fixture(TINY)).tokenize(&["passage: the cat"]).expect("tokens");
    for path in ["/tokenize", "/embed_all"] {
        assert_eq!(count(path, body.clone()), whole[0].tokens.len(), "{path}");
    }
    drop(server);

    let args = ["--model", dir, "--model", &reranker, "--default-prompt-name", "passage"];
    let server = Server::start(&args);
    let ask =
        |server: &Server| server.post("/embed", &json!({"inputs": "the cat"})).ok()[0].clone();
    assert!(near(&ask(&server), &of[2]));
    let texts = json!({"query": "a", "texts": ["the cat"]});
    let scores = server.post("/rerank", &texts).ok();
    let alone = Server::start(&["--model", &reranker]);
    assert_eq!(scores, alone.post("/rerank", &texts).ok());
    for (text, expected) in [("", &of[0]), ("passage: ", &of[2])] {
        let server = Server::start(&["--model", dir, "--default-prompt", text]);
        assert!(near(&ask(&server), expected), "{text}");
    }
}
