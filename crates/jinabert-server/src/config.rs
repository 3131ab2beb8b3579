//! Configuration of the server.

use crate::{error::ApiError, rate_limit::MinRate};
use axum::http::HeaderValue;
use jinabert::Options;
use std::{net::SocketAddr, path::PathBuf};

/// Configuration of the server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Models; at least one.  The first is the default.
    pub models: Vec<ModelSource>,
    /// Options for opening the models.
    pub embedding: Options,
    /// Addresses to listen on: the first free one is used.
    pub addresses: Vec<SocketAddr>,
    /// Accepted keys; if empty, no key is needed.
    pub keys: Vec<String>,
    /// Allowed CORS origins; `*` for all.
    pub origins: Vec<HeaderValue>,
    /// Limits for clients.
    pub limits: Limits,
    /// Truncate texts over the limit by default; a request may say otherwise.
    pub auto_truncate: bool,
    /// Accept token ids without checking that the tokenizer could have made them.
    pub trust_ids: bool,
    /// Path prefix, for example `/emb`, if a proxy does not remove it; empty for none.
    pub base: String,
}

/// Model to be served.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// Name that clients use.
    pub name: String,
    /// Directory of the model.
    pub dir: PathBuf,
}

/// Limits for clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests in progress or waiting for a batch; one more is answered with 429.
    pub concurrent_requests: usize,
    /// Maximum texts in one request.
    pub client_batch: usize,
    /// Maximum bytes of one request's body.
    pub payload: usize,
    /// Maximum bytes of all bodies in progress together.
    pub payloads: usize,
    /// Maximum open connections; others wait to be accepted.
    pub connections: usize,
    /// Maximum numbers in one response that has some for every token.
    pub answer: usize,
    /// Slowest rate at which a client may read its response.
    pub min_rate: MinRate,
}

impl Limits {
    /// Checks the number of items in a field: at least one, at most `client_batch`.
    pub fn batch(&self, field: &'static str, count: usize) -> Result<(), ApiError> {
        match count {
            0 => Err(ApiError::empty(field)),
            _ => self.at_most(field, count),
        }
    }

    /// Checks the number of items in a field: at most `client_batch`; zero is allowed.
    pub fn at_most(&self, field: &'static str, count: usize) -> Result<(), ApiError> {
        let limit = self.client_batch;
        if count <= limit { Ok(()) } else { Err(ApiError::too_many(field, count, limit)) }
    }
}
