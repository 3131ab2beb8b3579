//! What is measured, under the names that text-embeddings-inference gave to it.

use crate::scheduler::Batch;
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// Everything counted so far.
pub struct Metrics(PrometheusHandle);

/// Edges of histograms: few, for each is a series.
const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
const SIZES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// Routes with requests of their own.
pub const METHODS: &[&str] =
    &["embed", "embed_all", "rerank", "predict", "similarity", "tokenize", "decode"];

/// Times of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// All of it.
    pub total: Duration,
    /// Reading, checking and tokenising the input.
    pub tokenization: Duration,
    /// Waiting for the first batch.
    pub queue: Duration,
    /// From then to the last batch.
    pub inference: Duration,
}

impl Metrics {
    /// Counts from here on; all series are there from the beginning.
    pub(super) fn install() -> Result<Self, String> {
        let buckets = |builder: PrometheusBuilder, suffix: &str, edges| {
            builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), edges)
        };
        let build = || {
            let builder = buckets(PrometheusBuilder::new(), "_duration", SECONDS)?;
            let builder = buckets(builder, "_length", SIZES)?;
            let builder = buckets(builder, "_size", SIZES)?;
            buckets(builder, "_tokens", SIZES)
        };
        let recorder = build().map_err(|e| e.to_string())?.build_recorder();
        let handle = recorder.handle();
        // A second server of one process counts in the first one's.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        for method in METHODS {
            counter!("te_request_count", "method" => *method).absolute(0);
            counter!("te_request_success", "method" => *method).absolute(0);
        }
        for error in ["validation", "overloaded", "unauthorized", "backend"] {
            counter!("te_request_failure", "err" => error).absolute(0);
        }
        counter!("te_embed_count").absolute(0);
        counter!("te_embed_success").absolute(0);
        counter!("jinabert_truncated_inputs").absolute(0);
        counter!("jinabert_answers_not_taken").absolute(0);
        gauge!("te_queue_size").set(0.0);
        Ok(Self(handle))
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts what was recorded into its histograms.  Until then every value is kept, so it is to
    /// happen now and then, also where nobody asks.
    pub fn settle(&self) {
        self.0.run_upkeep();
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("te_request_count", "Requests");
    describe_counter!("te_request_success", "Requests that were answered");
    describe_counter!("te_request_failure", "Requests that were refused or failed");
    describe_counter!("te_embed_count", "Inputs");
    describe_counter!("te_embed_success", "Inputs that were answered");
    describe_counter!("jinabert_truncated_inputs", "Inputs that were cut at the limit");
    describe_counter!(
        "jinabert_answers_not_taken",
        "Connections that were closed because an answer was taken too slowly"
    );
    describe_gauge!("te_queue_size", "Requests that wait or are computed");
    describe_histogram!("te_request_duration", "Seconds from a request to its answer");
    describe_histogram!("te_request_tokenization_duration", "Seconds to read and tokenise it");
    describe_histogram!("te_request_queue_duration", "Seconds before its first batch");
    describe_histogram!("te_request_inference_duration", "Seconds from there to its last");
    describe_histogram!("te_request_input_length", "Tokens of an input");
    describe_histogram!("te_batch_next_size", "Inputs of a batch");
    describe_histogram!("te_batch_next_tokens", "Tokens of a batch");
}

/// A batch was run.
pub fn batch(batch: Batch) {
    histogram!("te_batch_next_size").record(batch.sequences as f64);
    histogram!("te_batch_next_tokens").record(batch.tokens as f64);
}

/// A request has come.
pub fn asked(method: &'static str) {
    counter!("te_request_count", "method" => method).increment(1);
}

/// It was answered.
pub fn answered(method: &'static str, inputs: usize, truncated: usize, times: Times) {
    counter!("te_request_success", "method" => method).increment(1);
    counter!("te_embed_success").increment(inputs as u64);
    counter!("jinabert_truncated_inputs").increment(truncated as u64);
    histogram!("te_request_duration").record(times.total.as_secs_f64());
    histogram!("te_request_tokenization_duration").record(times.tokenization.as_secs_f64());
    histogram!("te_request_queue_duration").record(times.queue.as_secs_f64());
    histogram!("te_request_inference_duration").record(times.inference.as_secs_f64());
}

/// Inputs of a request are read.
pub fn read(lengths: impl ExactSizeIterator<Item = usize>) {
    counter!("te_embed_count").increment(lengths.len() as u64);
    let histogram = histogram!("te_request_input_length");
    lengths.for_each(|tokens| histogram.record(tokens as f64));
}

/// It was not.
pub fn failed(status: u16) {
    let error = match status {
        401 => "unauthorized",
        429 => "overloaded",
        500.. => "backend",
        _ => "validation",
    };
    counter!("te_request_failure", "err" => error).increment(1);
}

/// A client took its answer too slowly.
pub fn not_taken() {
    counter!("jinabert_answers_not_taken").increment(1);
}

/// Requests under way.
pub fn queued(requests: usize) {
    gauge!("te_queue_size").set(requests as f64);
}
