//! Fuzzing of the routes: any request is answered, errors in JSON, and no request harms the server.
//!
//! `PROPTEST_CASES` sets the number of cases of each target; the default is 256.

use crate::{
    routes::{self, ROUTES},
    state::State,
    test_config::{KEY, config},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
    routing::MethodFilter,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Runtime;
use tower_service::Service;

/// Router over small models, and the runtime that runs it.
fn server() -> &'static (Runtime, Router) {
    static SERVER: OnceLock<(Runtime, Router)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let config = config();
        let state = Arc::new(State::new(&config).expect("metrics"));
        state.open(&config.models, &config.embedding).expect("good models");
        let router = routes::router(state, &config.origins, &config.base);
        (Runtime::new().expect("a runtime"), router)
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
        let response = router.call(request).await.expect("a response");
        let status = response.status().as_u16();
        (status, to_bytes(response.into_body(), 1 << 28).await.expect("a body").to_vec())
    })
}

#[test]
fn requests_get_503_until_the_models_are_loaded() {
    let config = config();
    let state = Arc::new(State::new(&config).expect("metrics"));
    let mut router = routes::router(state.clone(), &config.origins, &config.base);
    let mut ask = |request: Request<Body>| {
        let response = server().0.block_on(router.call(request)).expect("a response");
        (response.status().as_u16(), response.headers().contains_key("retry-after"))
    };
    let mut both = || {
        let embed = Request::post("/v1/embeddings")
            .header("authorization", KEY)
            .header("content-type", "application/json")
            .body(Body::from("{\"input\": \"a\"}"))
            .expect("a request");
        let health = Request::get("/health").body(Body::empty()).expect("a request");
        [ask(embed), ask(health)]
    };
    assert_eq!(both(), [(503, true); 2]);
    state.open(&config.models, &config.embedding).expect("good models");
    assert_eq!(both(), [(200, false); 2]);
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

fn any_path() -> impl Strategy<Value = &'static str> {
    let posts = ROUTES.iter().filter(|route| route.method == MethodFilter::POST);
    prop::sample::select(posts.map(|route| route.path).collect::<Vec<_>>())
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
    fn any_bytes_get_a_response(
        (path, body) in (any_path(), prop::collection::vec(any::<u8>(), 0..300)),
    ) {
        check(path, body)?;
    }

    #[test]
    fn any_json_gets_a_response((path, body) in (any_path(), any_json())) {
        check(path, body.to_string().into_bytes())?;
    }

    #[test]
    fn any_object_gets_a_response(
        path in any_path(),
        fields in prop::collection::vec((any_field(), any_json()), 0..6)
    ) {
        let body = Value::Object(fields.into_iter().collect());
        check(path, body.to_string().into_bytes())?;
    }

    /// Valid requests succeed, except for texts over the limit and empty chunks.
    #[test]
    fn valid_requests_succeed((path, body) in good()) {
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
    fn edited_requests_get_a_response(
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
    fn requests_without_a_valid_key_are_refused(
        key in prop::collection::vec(any::<u8>(), 0..30), kind in "[ -~]{0,30}") {
        let (status, _) = ask("/v1/embeddings", &key, kind.as_bytes(), b"{\"input\": \"a\"}".to_vec());
        prop_assert!([400, 401].contains(&status), "{key:?}: {status}");
    }

    /// Token ids are refused, or the model reads as many tokens as there are ids.
    #[test]
    fn token_ids_are_read_unchanged_or_refused(ids in prop::collection::vec(0u32..400, 1..30)) {
        let body = json!({ "input": [ids] });
        let (status, answer) = check("/v1/embeddings", body.to_string().into_bytes())?;
        let tokens = answer["usage"]["total_tokens"].as_u64().map(|tokens| tokens as usize);
        let own = [ids.len(), ids.len() + 2];
        prop_assert!(status == 400 || tokens.is_some_and(|n| own.contains(&n)), "{answer}");
    }
}
