//! Concurrent requests for two models on one GPU.

use crate::kit::{Server, fixture};
use jinabert::gpu::{AdapterSummary, Backend, native_adapters};
use serde_json::{Value, json};
use std::{env, sync::Barrier, thread};

const TEXTS: [&str; 4] =
    ["A blue cat", "", "the city of Berlin is old, and the river is long", "a b a"];

/// Indices and summaries of the Vulkan adapters; fails if one in `JINABERT_REQUIRE` is missing.
fn adapters() -> Vec<(String, AdapterSummary)> {
    let found = native_adapters().into_iter().enumerate();
    let vulkan = found.filter(|(_, adapter)| adapter.backend == Backend::Vulkan);
    let found: Vec<_> = vulkan.map(|(index, adapter)| (index.to_string(), adapter)).collect();
    let required = env::var("JINABERT_REQUIRE").unwrap_or_default().to_lowercase();
    for part in required.split(',').filter_map(|part| part.strip_prefix("vulkan-")) {
        let there = found.iter().any(|(_, adapter)| adapter.name.to_lowercase().contains(part));
        assert!(there, "JINABERT_REQUIRE names `{part}`, which this machine does not have");
    }
    found
}

/// Concurrent requests for both models: paths and bodies.
fn questions() -> [(&'static str, Value); 5] {
    let rank = |query: &str| json!({ "query": query, "documents": TEXTS, "raw_scores": true });
    [
        ("/v1/embeddings", json!({ "input": TEXTS })),
        ("/v1/rerank", rank("Which city?")),
        ("/v1/embeddings", json!({ "input": "a ".repeat(300) })),
        ("/v1/rerank", rank("cats")),
        ("/embed_all", json!({ "inputs": TEXTS[2] })),
    ]
}

/// Numbers in a response that the device computed, in order.
fn numbers(answer: &Value) -> Vec<f64> {
    let mut found = Vec::new();
    match answer {
        Value::Object(fields) => {
            let mut lists: Vec<(u64, Vec<f64>)> = Vec::new();
            for key in ["data", "results"] {
                for item in fields.get(key).and_then(Value::as_array).into_iter().flatten() {
                    let index = item["index"].as_u64().expect("an index");
                    let own = numbers(item.get("embedding").unwrap_or(&item["relevance_score"]));
                    lists.push((index, own));
                }
            }
            lists.sort_by_key(|(index, _)| *index);
            found.extend(lists.into_iter().flat_map(|(_, own)| own));
        }
        Value::Array(items) => found.extend(items.iter().flat_map(numbers)),
        other => found.push(other.as_f64().unwrap_or_else(|| panic!("no number: {other}"))),
    }
    found
}

/// Numbers in a server's responses to all requests at once, sent three times.
fn ask(server: &Server) -> Vec<Vec<f64>> {
    let questions = questions();
    let together = Barrier::new(questions.len());
    thread::scope(|scope| {
        let asked: Vec<_> = questions
            .iter()
            .map(|(path, body)| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    let mut all: Vec<_> =
                        (0..3).map(|_| numbers(&server.post(path, body).ok())).collect();
                    let first = all.remove(0);
                    for other in &all {
                        near(path, other, &first);
                    }
                    first
                })
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().expect("answers")).collect()
    })
}

#[track_caller]
fn near(case: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{case}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= 1e-5, "{case}: off by {worst}");
}

#[test]
fn two_models_share_a_gpu() {
    let [embedder, reranker] = ["tiny-natural", "tiny-reranker-bpe"].map(fixture);
    // With batches this small, a request needs several.
    let args = ["--model", &embedder, "--model", &reranker, "--max-batch-tokens", "128"];
    let expected = ask(&Server::start(&args));
    assert!(expected.iter().all(|numbers| numbers.len() >= TEXTS.len()));
    for (index, adapter) in adapters() {
        let server = Server::start_on(&index, &args);
        let found = ask(&server);
        for ((path, body), (found, expected)) in questions().iter().zip(found.iter().zip(&expected))
        {
            near(&format!("{}: {path} {body}", adapter.name), found, expected);
        }
        let device = server.get("/info", &[]).ok()["device"].as_str().expect("a name").to_owned();
        assert!(device.contains(&adapter.name), "{device}, not {}", adapter.name);
        let answer = server.post("/embed", &json!({ "inputs": "a" }));
        assert_eq!(answer.header("x-compute-type"), "gpu");
        assert_eq!(server.get("/health", &[]).status, 200);
        assert_eq!(server.metric("te_request_failure{err=\"backend\"}"), 0.0);
    }
}
