//! Prompts that a model declares, and prompts selected by the server or a request.

use crate::kit::{Server, embedder, fixture};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

const TINY: &str = "tiny-natural";

/// Copy of a fixture.
fn copy(name: &str) -> TempDir {
    let place = tempfile::tempdir().expect("a directory");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(format!("{}/{file}", fixture(name)), place.path().join(file)).expect("a copy");
    }
    place
}

/// Copy of a model, with prompts added.
fn model() -> TempDir {
    let place = copy(TINY);
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

/// Vectors of the library, for a task.
fn of_task(embedder: &jinabert::Embedder, task: Option<&str>, text: &str) -> Vec<f32> {
    let adapter = task.map(|task| embedder.adapter(task).expect("a task"));
    let options = jinabert::EncodeOptions { adapter, ..embedder.encode_options() };
    let job = embedder.jobs().texts(&[text], options).expect("a text");
    embedder.compute(job).expect("a vector").remove(0).vector.into_inner()
}

#[test]
fn requests_name_tasks_in_each_dialect() {
    let dir = fixture("v3-original");
    let library = embedder(&dir);
    let of = |task: Option<&str>| of_task(&library, task, "a tree");
    let server = Server::start(&["--model", &dir]);
    let openai = |more: Value| {
        let mut body = json!({"input": "a tree"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        server.post("/v1/embeddings", &body)
    };
    let vector = |more: Value| openai(more).ok()["data"][0]["embedding"].clone();
    assert!(near(&vector(json!({})), &of(None)));
    for task in ["retrieval.query", "retrieval.passage", "separation"] {
        assert!(near(&vector(json!({"task": task})), &of(Some(task))), "{task}");
    }
    let late = json!({"task": "retrieval.passage", "late_chunking": true});
    assert!(near(&vector(late), &of(Some("retrieval.passage"))));
    for (kind, task) in [
        ("search_query", "retrieval.query"),
        ("search_document", "retrieval.passage"),
        ("classification", "classification"),
        ("clustering", "separation"),
    ] {
        assert!(near(&vector(json!({"input_type": kind})), &of(Some(task))), "{kind}");
    }
    for (more, field, says) in [
        (json!({"task": "code"}), "task", "`text-matching`"),
        (json!({"input_type": "image"}), "input_type", "`search_document`"),
        (json!({"dimensions": 20}), "dimensions", "16, 32, 64"),
    ] {
        let refused = openai(more);
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["param"], field);
        assert!(refused.text.contains(says), "{}", refused.text);
    }
    let body = json!({"inputs": "a tree", "prompt_name": "retrieval.query"});
    assert!(near(&server.post("/embed", &body).ok()[0], &of(Some("retrieval.query"))));
    // Texts of several tasks at once, in common batches.
    let tasks = [None, Some("retrieval.query"), Some("text-matching"), Some("retrieval.passage")];
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (vector, of, task) = (&vector, &of, tasks[n % tasks.len()]);
            scope.spawn(move || {
                assert!(near(&vector(json!({"task": task})), &of(task)), "{task:?}")
            });
        }
    });
    drop(server);

    let server = Server::start(&["--model", &dir, "--default-task", "separation"]);
    let answer = server.post("/v1/embeddings", &json!({"input": "a tree"})).ok();
    assert!(near(&answer["data"][0]["embedding"], &of(Some("separation"))));
    drop(server);
    let server = Server::start(&["--model", &fixture(TINY)]);
    // Client libraries send these to every model.
    for (field, value) in [("task", "separation"), ("input_type", "search_query")] {
        server.post("/v1/embeddings", &json!({"input": "a", field: value})).ok();
    }
}

#[test]
fn colbert_models_and_embedders_rank_by_max_sim() {
    let colbert = fixture("v3-colbert");
    let server = Server::start(&["--model", &colbert]);
    let documents = ["古い橋は川の上流にある。", "A red boat"];
    let ask = |path: &str, raw: bool| {
        let body = json!({"query": "橋はどこですか", "documents": documents, "raw_scores": raw});
        let mut results = server.post(path, &body).ok()["results"].clone();
        let results = results.as_array_mut().expect("a list");
        results.sort_by_key(|result| result["index"].as_u64());
        results[0]["relevance_score"].as_f64().expect("a score")
    };
    // of the fixture: 32 tokens of the query
    for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        assert!((ask(path, true) - 26.865_511_858_861).abs() < 1e-3);
        assert!((ask(path, false) - 26.865_511_858_861 / 32.0).abs() < 1e-4);
    }
    drop(server);
    let server = Server::start(&["--model", &fixture(TINY), "--max-sim"]);
    let body = json!({"query": "the cat", "texts": ["a dog", "the cat"]});
    let ranks = server.post("/rerank", &body).ok();
    assert_eq!(ranks[0]["index"], 1);
    let best = ranks[0]["score"].as_f64().expect("a score");
    assert!((best - 1.0).abs() < 1e-5, "each token is its own best: {best}");
    server.post("/embed", &json!({"inputs": "the cat"})).ok();
    drop(server);

    // A reranker ranks by its classifier, also beside an embedding model.
    let reranker = fixture("v3-reranker");
    let body = json!({"query": "how do I prune an apple tree?", "raw_scores": true,
        "texts": ["A red boat.", "Prune apple trees in late winter."]});
    let server = Server::start(&["--model", &reranker]);
    let ranks = server.post("/rerank", &body).ok();
    drop(server);
    let server = Server::start(&["--model", &fixture(TINY), "--model", &reranker, "--max-sim"]);
    assert_eq!(server.post("/rerank", &body).ok(), ranks);
}

#[test]
fn tokens_are_those_of_the_text_in_lower_case_if_the_model_says_so() {
    let place = copy("tiny-code-qknorm");
    let dir = place.path().to_str().expect("UTF-8");
    let plain = Server::start(&["--model", dir]);
    let tokens = |server: &Server, text: &str| {
        server.post("/tokenize", &json!({"inputs": text})).ok()[0].clone()
    };
    let (upper, lower) = (tokens(&plain, "THE Cat"), tokens(&plain, "the cat"));
    assert_ne!(upper, lower, "a tokenizer with cases");
    drop(plain);
    let declared = json!({"do_lower_case": true}).to_string();
    fs::write(place.path().join("sentence_bert_config.json"), declared).expect("writable");
    let server = Server::start(&["--model", dir]);
    assert_eq!(tokens(&server, "THE Cat"), lower);
}
