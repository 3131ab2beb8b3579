//! Lifecycle of one request, from body to response: parsing, computation, timing.

use crate::{
    body::{self, is_json, turn_away},
    dialect::{Dialect, RouteInfo},
    error::ApiError,
    metrics,
    permits::{self, CallPermits, RequestPermits},
    response::{ResponseBody, ResponseParts},
    state::{ServedModel, State},
    stats::RequestStats,
    wire::object,
};
use axum::{
    body::Body,
    extract,
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use jinabert::EncodeJob;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use std::{mem, sync::Arc, time::Instant};
use tokio::{sync::oneshot, task};

/// Limits up to which a response is built and written on the async thread: numbers, and inputs.
const FEW_NUMBERS: usize = 1 << 14;
const FEW_INPUTS: usize = 32;

/// Maximum body in bytes that is parsed and tokenised on the async thread, not on one of its own.
const SMALL_BODY: usize = 8 << 10;

/// State of the server, as a handler receives it.
pub type SharedState = extract::State<Arc<State>>;

/// Request in progress.
pub struct Call {
    /// The server.
    pub state: Arc<State>,
    /// Statistics for the response headers and the metrics.
    pub stats: RequestStats,
    /// Label of the route in the metrics.
    label: &'static str,
    dialect: Dialect,
    start: Instant,
    body: Vec<u8>,
    permits: CallPermits,
}

impl Call {
    /// Handles a request: reads it, and responds with the result of `run`.
    pub async fn handle<T: Serialize + Send + 'static>(
        extract::State(state): SharedState,
        request: Request<Body>,
        run: impl AsyncFnOnce(&mut Self) -> Result<T, ApiError>,
    ) -> Response<Body> {
        let info: RouteInfo = request.extensions().get().copied().unwrap_or_default();
        let label = info.label.unwrap_or_default();
        metrics::request_received(label);
        let mut call = match Self::read(state, label, info.dialect, request).await {
            Ok(call) => call,
            Err(error) => return failed(error, info.dialect),
        };
        let result = run(&mut call).await;
        let dialect = call.dialect;
        let response = match result {
            Ok(answer) => call.respond(answer).await,
            Err(error) => Err(error),
        };
        response.unwrap_or_else(|error| failed(error, dialect))
    }

    async fn read(
        state: Arc<State>,
        label: &'static str,
        dialect: Dialect,
        request: Request<Body>,
    ) -> Result<Self, ApiError> {
        let start = Instant::now();
        if let Err(error) = state.models().map(drop).and_then(|()| is_json(request.headers())) {
            turn_away(request);
            return Err(error);
        }
        let (body, body_permits) = body::read(&state, request).await?;
        let request_permit = permits::for_request(&state)?;
        let permits = CallPermits::new(RequestPermits::new(request_permit, Some(body_permits)));
        let stats = RequestStats::default();
        Ok(Self { state, stats, label, dialect, start, body, permits })
    }

    /// Sets the dialect of errors.
    pub fn set_dialect(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// Runs parsing, checks and tokenising; for large bodies, on a thread of its own.
    pub async fn prepare<T: Send + 'static>(
        &mut self,
        run: impl FnOnce(&State, &[u8]) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let body = mem::take(&mut self.body);
        let prepared = if body.len() <= SMALL_BODY {
            run(&self.state, &body)
        } else {
            self.on_reader(move |state| run(state, &body)).await
        };
        self.stats.times.tokenization = self.start.elapsed();
        prepared
    }

    /// Runs CPU-bound work in the thread pool for tokenising, unless the client has left.
    async fn on_reader<T: Send + 'static>(
        &self,
        run: impl FnOnce(&State) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permits = self.permits.share();
        let state = self.state.clone();
        let run = move || {
            if permits.is_abandoned() {
                Err(ApiError::internal())
            } else {
                state.readers.install(|| run(&state))
            }
        };
        task::spawn_blocking(run).await.unwrap_or_else(|_| Err(ApiError::internal()))
    }

    /// Submits a job to the scheduler and waits for its result.
    pub async fn compute<T: Send + 'static>(
        &mut self,
        model: &ServedModel,
        job: EncodeJob<T>,
    ) -> Result<T, ApiError> {
        metrics::inputs_read(job.input.sequences().iter().map(|sequence| sequence.tokens()));
        let (sender, receiver) = oneshot::channel();
        let (input, finish) = job.split();
        // If the client leaves, dropping this future drops the guard, which cancels the work.
        let _guard = model.scheduler.submit(input, |result| drop(sender.send(result)));
        let received = receiver.await.map_err(|_| ApiError::internal())?;
        let done = received.map_err(ApiError::engine)?;
        let numbers = done.rows.iter().map(Vec::len).sum::<usize>();
        self.stats.times.queue += done.queued;
        self.stats.times.inference += done.computed;
        self.stats.device_kind = Some(model.embedder().runtime().kind());
        if numbers <= FEW_NUMBERS {
            Ok(finish(done.rows))
        } else {
            self.on_reader(move |_| Ok(finish(done.rows))).await
        }
    }

    /// Writes the response.
    async fn respond<T: Serialize + Send + 'static>(
        mut self,
        answer: T,
    ) -> Result<Response<Body>, ApiError> {
        // Permits come first; the written response may need a little more, or less.
        self.permits.resize(&self.state, self.stats.response_bytes).await?;
        let write = move || {
            let mut parts = ResponseParts::default();
            serde_json::to_writer(&mut parts, &answer).map_err(|_| ApiError::internal())?;
            Ok(parts)
        };
        let parts = if self.stats.inputs <= FEW_INPUTS && self.label != "embed_all" {
            write()?
        } else {
            self.on_reader(move |_| write()).await?
        };
        self.permits.resize(&self.state, parts.len()).await?;
        self.stats.times.total = self.start.elapsed();
        let RequestStats { inputs, truncated, times, .. } = self.stats;
        metrics::request_succeeded(self.label, inputs, truncated, times);
        let mut response = Response::new(Body::new(ResponseBody::new(parts, self.permits.share())));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let first =
            || self.state.models().map_or("", |models| models[0].embedder().runtime().kind());
        self.stats.device_kind.get_or_insert_with(first);
        self.stats.set_headers(headers);
        Ok(response)
    }
}

/// Parses a body, which must be a JSON object.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut from = serde_json::Deserializer::from_slice(body);
    let parsed = object(&mut from).and_then(|parsed| from.end().map(|()| parsed));
    parsed.map_err(|e| {
        let status = match e.classify() {
            Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, format!("expected JSON of this route, got a body with an error: {e}"))
    })
}

/// Counts an error and responds with it.
fn failed(error: ApiError, dialect: Dialect) -> Response<Body> {
    metrics::request_failed(error.status());
    error.response(dialect)
}
