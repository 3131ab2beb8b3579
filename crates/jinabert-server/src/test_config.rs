//! Configuration of a small server for tests.

use crate::{
    config::{Limits, ModelSource, ServerConfig},
    rate_limit::MinRate,
};
use jinabert::{Device, Options};

/// API key of the server.
pub const KEY: &str = "key";

/// Configuration with an embedding model and a reranker, on the CPU.
pub fn config() -> ServerConfig {
    let model = |name: &str| ModelSource {
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
        limits: Limits {
            concurrent_requests: 8,
            client_batch: 16,
            payload: 1 << 16,
            payloads: 1 << 20,
            connections: 8,
            answer: 1 << 16,
            min_rate: MinRate::default(),
        },
        auto_truncate: true,
        trust_ids: false,
        base: "/emb".to_owned(),
    }
}
