//! Statistics of one request, for the response headers and the metrics.

use crate::metrics::Times;
use axum::http::{HeaderMap, HeaderValue};
use jinabert::Embedded;

/// Statistics of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestStats {
    /// Characters of the input.
    pub characters: usize,
    /// Tokens that the model read.
    pub tokens: usize,
    /// Number of inputs.
    pub inputs: usize,
    /// Number of truncated inputs.
    pub truncated: usize,
    /// Estimated size of a long response in bytes.
    pub response_bytes: usize,
    /// Device that computed it: `cpu` or `gpu`.
    pub device_kind: Option<&'static str>,
    /// Durations of the stages.
    pub times: Times,
}

impl RequestStats {
    /// Records inputs that were read: characters, and for each input its tokens and, if some were
    /// dropped, the length of the whole.
    pub fn record(
        &mut self,
        characters: usize,
        inputs: usize,
        lengths: impl IntoIterator<Item = (usize, Option<usize>)>,
    ) {
        self.characters = characters;
        self.inputs = inputs;
        for (tokens, whole) in lengths {
            self.tokens += tokens;
            self.truncated += usize::from(whole.is_some());
        }
    }

    /// Records embeddings, as [`RequestStats::record`].
    pub fn record_embedded(&mut self, embedded: &[Embedded], characters: usize) {
        let lengths = embedded.iter().map(|one| (one.tokens, one.truncated));
        self.record(characters, embedded.len(), lengths);
    }

    /// Sets the response headers, with the names of text-embeddings-inference.
    pub fn set_headers(&self, headers: &mut HeaderMap) {
        let times = &self.times;
        let numbers = [
            ("x-compute-characters", self.characters),
            ("x-compute-tokens", self.tokens),
            ("x-compute-time", times.total.as_millis() as usize),
            ("x-total-time", times.total.as_millis() as usize),
            ("x-tokenization-time", times.tokenization.as_millis() as usize),
            ("x-queue-time", times.queue.as_millis() as usize),
            ("x-inference-time", times.inference.as_millis() as usize),
            ("x-truncated-inputs", self.truncated),
        ];
        for (name, value) in numbers {
            headers.insert(name, HeaderValue::from(value));
        }
        let kind = self.device_kind.unwrap_or_default();
        headers.insert("x-compute-type", HeaderValue::from_static(kind));
    }
}
