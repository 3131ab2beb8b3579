//! Metrics, with the names of text-embeddings-inference.

use axum::http::StatusCode;
use jinabert::scheduler::Batch;
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// Handle to the recorded metrics.
pub struct Metrics(PrometheusHandle);

/// Bucket boundaries of histograms: few, since each one is a series.
const SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
const SIZES: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];

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
    /// Installs the recorder; all series but those of the routes exist from the beginning.
    pub fn install() -> Result<Self, String> {
        let recorder = builder().map_err(|e| e.to_string())?.build_recorder();
        let handle = recorder.handle();
        // A second server in the same process counts into the recorder of the first.
        let _ = metrics::set_global_recorder(recorder);
        describe();
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
    pub fn update_histograms(&self) {
        self.0.run_upkeep();
    }
}

/// Builder with the buckets of all histograms.
fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_duration".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_length".to_owned()), SIZES)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), SIZES)?
        .set_buckets_for_metric(Matcher::Suffix("_tokens".to_owned()), SIZES)
}

/// Creates the series of the routes with these labels, so that they exist before any request.
pub fn create_route_series(labels: impl Iterator<Item = &'static str>) {
    for label in labels {
        counter!("te_request_count", "method" => label).absolute(0);
        counter!("te_request_success", "method" => label).absolute(0);
    }
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("te_request_count", "Requests");
    describe_counter!("te_request_success", "Requests that succeeded");
    describe_counter!("te_request_failure", "Requests that were refused or failed");
    describe_counter!("te_embed_count", "Inputs");
    describe_counter!("te_embed_success", "Inputs of requests that succeeded");
    describe_counter!("jinabert_truncated_inputs", "Inputs that were truncated");
    describe_counter!(
        "jinabert_answers_not_taken",
        "Connections that were closed because the client read its response too slowly"
    );
    describe_gauge!("te_queue_size", "Requests in progress, waiting or being computed");
    describe_histogram!("te_request_duration", "Seconds from a request to its response");
    describe_histogram!(
        "te_request_tokenization_duration",
        "Seconds for reading and tokenising a request"
    );
    describe_histogram!("te_request_queue_duration", "Seconds until the first batch of a request");
    describe_histogram!(
        "te_request_inference_duration",
        "Seconds from the first batch of a request to the end of its last"
    );
    describe_histogram!("te_request_input_length", "Tokens of an input");
    describe_histogram!("te_batch_next_size", "Inputs of a batch");
    describe_histogram!("te_batch_next_tokens", "Tokens of a batch");
}

/// Counts a batch.
pub fn batch_started(batch: Batch) {
    histogram!("te_batch_next_size").record(batch.sequences as f64);
    histogram!("te_batch_next_tokens").record(batch.tokens as f64);
}

/// Counts a request.
pub fn request_received(label: &'static str) {
    counter!("te_request_count", "method" => label).increment(1);
}

/// Counts a successful response.
pub fn request_succeeded(label: &'static str, inputs: usize, truncated: usize, times: Times) {
    counter!("te_request_success", "method" => label).increment(1);
    counter!("te_embed_success").increment(inputs as u64);
    counter!("jinabert_truncated_inputs").increment(truncated as u64);
    histogram!("te_request_duration").record(times.total.as_secs_f64());
    histogram!("te_request_tokenization_duration").record(times.tokenization.as_secs_f64());
    histogram!("te_request_queue_duration").record(times.queue.as_secs_f64());
    histogram!("te_request_inference_duration").record(times.inference.as_secs_f64());
}

/// Counts the inputs of a request.
pub fn inputs_read(lengths: impl ExactSizeIterator<Item = usize>) {
    counter!("te_embed_count").increment(lengths.len() as u64);
    let histogram = histogram!("te_request_input_length");
    lengths.for_each(|tokens| histogram.record(tokens as f64));
}

/// Counts a failed response.
pub fn request_failed(status: StatusCode) {
    let error = match status.as_u16() {
        401 => "unauthorized",
        429 => "overloaded",
        500.. => "backend",
        _ => "validation",
    };
    counter!("te_request_failure", "err" => error).increment(1);
}

/// Counts a response that its client read too slowly.
pub fn slow_reader_closed() {
    counter!("jinabert_answers_not_taken").increment(1);
}

/// Sets the number of requests in progress.
pub fn set_requests_in_progress(requests: usize) {
    gauge!("te_queue_size").set(requests as f64);
}
