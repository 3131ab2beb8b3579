//! Metrics, with the names of text-embeddings-inference.

use jinabert::scheduler::Batch;
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// Handle to the recorded metrics.
pub struct Metrics(PrometheusHandle);

/// Bucket boundaries of histograms: few, since each one is a series.
const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
const SIZES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

/// Routes whose requests are counted separately.
pub const METHODS: &[&str] =
    &["embed", "embed_all", "rerank", "predict", "similarity", "tokenize", "decode"];

/// Durations of the stages of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Total time.
    pub total: Duration,
    /// Time for reading, checking and tokenising the input.
    pub tokenization: Duration,
    /// Time until the first batch starts.
    pub queue: Duration,
    /// Time from the start of the first batch to the end of the last.
    pub inference: Duration,
}

impl Metrics {
    /// Installs the recorder; all series exist from the beginning.
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
        // A second server in the same process counts into the recorder of the first.
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

    /// Metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Sorts recorded values into their histograms.  Until then every value is kept, so call it now
    /// and then, also if nobody requests the metrics.
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

/// Counts a batch.
pub fn batch(batch: Batch) {
    histogram!("te_batch_next_size").record(batch.sequences as f64);
    histogram!("te_batch_next_tokens").record(batch.tokens as f64);
}

/// Counts a request.
pub fn asked(method: &'static str) {
    counter!("te_request_count", "method" => method).increment(1);
}

/// Counts a successful response.
pub fn answered(method: &'static str, inputs: usize, truncated: usize, times: Times) {
    counter!("te_request_success", "method" => method).increment(1);
    counter!("te_embed_success").increment(inputs as u64);
    counter!("jinabert_truncated_inputs").increment(truncated as u64);
    histogram!("te_request_duration").record(times.total.as_secs_f64());
    histogram!("te_request_tokenization_duration").record(times.tokenization.as_secs_f64());
    histogram!("te_request_queue_duration").record(times.queue.as_secs_f64());
    histogram!("te_request_inference_duration").record(times.inference.as_secs_f64());
}

/// Counts the inputs of a request.
pub fn read(lengths: impl ExactSizeIterator<Item = usize>) {
    counter!("te_embed_count").increment(lengths.len() as u64);
    let histogram = histogram!("te_request_input_length");
    lengths.for_each(|tokens| histogram.record(tokens as f64));
}

/// Counts a failed response.
pub fn failed(status: u16) {
    let error = match status {
        401 => "unauthorized",
        429 => "overloaded",
        500.. => "backend",
        _ => "validation",
    };
    counter!("te_request_failure", "err" => error).increment(1);
}

/// Counts a response that its client read too slowly.
pub fn not_taken() {
    counter!("jinabert_answers_not_taken").increment(1);
}

/// Sets the number of requests in progress.
pub fn queued(requests: usize) {
    gauge!("te_queue_size").set(requests as f64);
}
