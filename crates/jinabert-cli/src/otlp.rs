//! Export of request spans to an OpenTelemetry collector, as OTLP over HTTP.

use opentelemetry::{global, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource, propagation::TraceContextPropagator, trace::SdkTracer, trace::SdkTracerProvider,
};
use std::{future::Future, pin::Pin, time::Duration};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// Maximum time for a request to the collector.
const PATIENCE: Duration = Duration::from_secs(10);

/// Exporter that sends the remaining spans when the process ends.
pub struct Exporter(SdkTracerProvider);

impl Drop for Exporter {
    fn drop(&mut self) {
        // An unreachable collector is ignored at the end of the process.
        let _ = self.0.shutdown();
    }
}

/// Layer that converts spans to OpenTelemetry's and sends them to `endpoint` with `/v1/traces`
/// appended, in batches from a thread of its own.
pub fn layer<S>(endpoint: &str) -> Result<(OpenTelemetryLayer<S, SdkTracer>, Exporter), String>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_endpoint(url)
        .build()
        .map_err(|e| format!("--otlp-endpoint {endpoint}: {e}"))?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("jinabert").build())
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    let tracer = provider.tracer("jinabert");
    Ok((tracing_opentelemetry::layer().with_tracer(tracer), Exporter(provider)))
}

/// HTTP client, the same as for the hub.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self(config.timeout_global(Some(PATIENCE)).build().into())
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(ureq::http::Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }
}

impl HttpClient for Client {
    // Runs on the exporter's own thread, which may block.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.send(request) })
    }
}
