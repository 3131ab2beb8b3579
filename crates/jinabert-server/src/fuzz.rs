//! Fuzzing of the routes: any request is answered, errors in JSON, and no request harms the server.
//!
//! `PROPTEST_CASES` sets the number of cases of each target; the default is 256.

use super::{ServerConfig, routes, state::State};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use jinabert::{Device, Options};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Runtime;
use tower_service::Service;

pub(super) const KEY: &str = "key";

pub(super) fn serve() -> ServerConfig {
    let model = |name: &str| super::ModelSource {
        name: name.to_owned(),
        dir: format!("{}/../../tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR")).into(),
    };
    ServerConfig {
        models: vec![model("tiny-natural"), model("tiny-reranker-bpe")],
        embedding: Options {
            device: Device::Cpu,
            max_length: Some(64),
            batch_tokens: Some(256),
            ..Options::default()
        },
        addresses: Vec::new(),
        keys: vec![KEY.to_owned()],
        origins: vec!["https://a.b".parse().expect("a header")],
        limits: super::Limits {
            concurrent_requests: 8,
            client_batch: 16,
            payload: 1 << 16,
            payloads: 1 << 20,
            connections: 8,
            answer: 1 << 16,
            pace: super::MinRate::default(),
        },
        auto_truncate: true,
        trust_ids: false,
        base: "/emb".to_owned(),
    }
}

/// Router over small models, and the runtime that runs it.
fn server() -> &'static (Runtime, Router) {
    static SERVER: OnceLock<(Runtime, Router)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let serve = serve();
        let state = Arc::new(State::new(&serve).expect("metrics"));
        state.open(&serve.models, &serve.embedding).expect("good models");
        (Runtime::new().expect("a runtime"), routes::router(state, &serve.origins, &serve.base))
    })
}

/// Status and body of the response.
fn ask(path: &str, key: &[u8], kind: &[u8], body: Vec<u8>) -> (u16, Vec<u8>) {
    let (runtime, router) = server();
    let mut router = router.clone();
    let request = Request::post(path).header("authorization", key).header("content-type", kind);
    let Ok(request) = request.body(Body::from(body)) else {
        return (400, b"{}".to_vec()); // no HTTP client can send it
    };
    runtime.block_on(async {
        let answer = router.call(request).await.expect("an answer");
        let status = answer.status().as_u16();
        (status, to_bytes(answer.into_body(), 1 << 28).await.expect("a body").to_vec())
    })
}

#[test]
fn models_that_load_are_waited_for() {
    let serve = serve();
    let state = Arc::new(State::new(&serve).expect("metrics"));
    let mut router = routes::router(state.clone(), &serve.origins, &serve.base);
    let mut ask = |request: Request<Body>| {
        let answer = server().0.block_on(router.call(request)).expect("an answer");
        (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
    };
    let mut all = || {
        let embed = Request::post("/v1/embeddings").header("authorization", KEY);
        let embed = embed.header("content-type", "application/json");
        let embed = embed.body(Body::from("{\"input\": \"a\"}")).expect("a request");
        let health = Request::get("/health").body(Body::empty()).expect("a request");
        [ask(embed), ask(health)]
    };
    assert_eq!(all(), [(503, true); 2]);
    state.open(&serve.models, &serve.embedding).expect("good models");
    assert_eq!(all(), [(200, false); 2]);
}

/// Asserts a JSON response and no internal error.
fn check(path: &str, body: Vec<u8>) -> Result<(u16, Value), TestCaseError> {
    let (status, answer) = ask(path, b"Bearer key", b"application/json", body);
    prop_assert!(status < 500, "{path}: {status} {}", String::from_utf8_lossy(&answer));
    let value: Value = serde_json::from_slice(&answer).expect("JSON");
    if status >= 400 {
        prop_assert!(value["message"].is_string(), "{value}");
    }
    Ok((status, value))
}

const PATHS: [&str; 12] = [
    "/",
    "/embed",
    "/embed_all",
    "/similarity",
    "/predict",
    "/tokenize",
    "/decode",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/embeddings",
    "/embeddings",
];

fn any_path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&PATHS[..])
}

/// Any JSON, not too large.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u32..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(json!("base64")),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((any_field(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Name of a field: one that some request has, or an unknown one.
fn any_field() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "input",
        "inputs",
        "model",
        "encoding_format",
        "embedding_type",
        "dimensions",
        "truncate",
        "late_chunking",
        "normalized",
        "query",
        "documents",
        "texts",
        "top_n",
        "raw_scores",
        "source_sentence",
        "sentences",
        "parameters",
        "ids",
        "text",
        "truncation_direction",
    ];
    prop_oneof![
        9 => prop::sample::select(KNOWN).prop_map(str::to_owned),
        1 => ".{0,10}",
    ]
}

/// Path and body of a valid request.
fn good() -> impl Strategy<Value = (&'static str, String)> {
    let text = || "[ -~äß🦀\n]{0,60}";
    let texts = move || prop::collection::vec(text(), 1..5);
    prop_oneof![
        (texts(), any::<bool>(), 0u64..64).prop_map(|(texts, late, dims)| {
            let body = json!({ "input": texts, "late_chunking": late, "dimensions": dims });
            ("/v1/embeddings", body)
        }),
        (texts(), any::<bool>()).prop_map(|(texts, truncate)| {
            ("/embed", json!({ "inputs": texts, "truncate": truncate }))
        }),
        texts().prop_map(|texts| ("/embed_all", json!({ "inputs": texts }))),
        texts().prop_map(|texts| ("/tokenize", json!({ "inputs": texts }))),
        prop::collection::vec(0u32..300, 1..20).prop_map(|ids| ("/decode", json!({ "ids": ids }))),
        (text(), texts()).prop_map(|(query, texts)| {
            ("/v1/rerank", json!({ "query": query, "documents": texts, "top_n": 2 }))
        }),
        (text(), texts()).prop_map(|(query, texts)| {
            ("/similarity", json!({ "inputs": { "source_sentence": query, "sentences": texts } }))
        }),
        (text(), text()).prop_map(|(a, b)| ("/predict", json!({ "inputs": [a, b] }))),
    ]
    .prop_map(|(path, body)| (path, body.to_string()))
}

proptest! {
    #[test]
    fn bytes((path, body) in (any_path(), prop::collection::vec(any::<u8>(), 0..300))) {
        check(path, body)?;
    }

    #[test]
    fn json((path, body) in (any_path(), any_json())) {
        check(path, body.to_string().into_bytes())?;
    }

    #[test]
    fn objects(
        path in any_path(),
        fields in prop::collection::vec((any_field(), any_json()), 0..6)
    ) {
        let body = Value::Object(fields.into_iter().collect());
        check(path, body.to_string().into_bytes())?;
    }

    /// Valid requests succeed, except for texts over the limit and empty chunks.
    #[test]
    fn right((path, body) in good()) {
        let (status, answer) = check(path, body.clone().into_bytes())?;
        prop_assert!([200, 400, 413].contains(&status), "{path} {body}: {status} {answer}");
        if status == 200 && path == "/v1/embeddings" {
            let sent: Value = serde_json::from_str(&body).expect("JSON");
            let texts = sent["input"].as_array().map(Vec::len);
            prop_assert_eq!(answer["data"].as_array().map(Vec::len), texts);
        }
    }

    /// Valid requests with a few bytes replaced, dropped or doubled.
    #[test]
    fn nearly_right(
        ((path, body), edits) in (good(), prop::collection::vec(any::<(u16, u8, u8)>(), 1..6))
    ) {
        let mut body = body.into_bytes();
        for (at, byte, how) in edits {
            let at = usize::from(at) % body.len().max(1);
            match how % 3 {
                0 if !body.is_empty() => body[at] = byte,
                1 if !body.is_empty() => drop(body.remove(at)),
                _ => body.insert(at, byte),
            }
        }
        check(path, body)?;
    }

    /// A request without a valid key is refused as such, whatever else it contains.
    #[test]
    fn keys(key in prop::collection::vec(any::<u8>(), 0..30), kind in "[ -~]{0,30}") {
        let (status, _) = ask("/v1/embeddings", &key, kind.as_bytes(), b"{\"input\": \"a\"}".to_vec());
        prop_assert!([400, 401].contains(&status), "{key:?}: {status}");
    }

    /// Token ids are refused, or the model reads as many tokens as there are ids.
    #[test]
    fn ids(ids in prop::collection::vec(0u32..400, 1..30)) {
        let body = json!({ "input": [ids] });
        let (status, answer) = check("/v1/embeddings", body.to_string().into_bytes())?;
        let tokens = answer["usage"]["total_tokens"].as_u64().map(|tokens| tokens as usize);
        let own = [ids.len(), ids.len() + 2];
        prop_assert!(status == 400 || tokens.is_some_and(|n| own.contains(&n)), "{answer}");
    }
}
