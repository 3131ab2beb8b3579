//! One request from its body to its answer: limits, parsing, the engine, times.

use super::{
    metrics::{self, Times},
    refusal::{Dialect, Refusal},
    state::{Served, State},
};
use crate::{Embedded, Prepared};
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header},
};
use hyper::body::Frame;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{error::Category, value::RawValue};
use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    task, time,
};

/// The longest silence in the middle of a body.
const SILENCE: Duration = Duration::from_secs(15);

/// The longest that a body may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long, and how much, is read of a body that is refused.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 128 << 20;

/// Bodies that are parsed and tokenised where they arrive; larger ones on a thread of their own.
const SMALL: usize = 8 << 10;

/// A request that is worked on.
pub struct Call {
    /// The server.
    pub state: Arc<State>,
    /// What goes into the headers of its answer.
    pub report: Report,
    method: &'static str,
    dialect: Dialect,
    start: Instant,
    body: Vec<u8>,
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// What goes into an answer's headers and the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Characters of the input.
    pub characters: usize,
    /// Tokens that the model read.
    pub tokens: usize,
    /// Inputs.
    pub inputs: usize,
    /// Of them, those that were cut.
    pub truncated: usize,
    times: Times,
}

impl Report {
    /// Vectors of texts of so many characters.
    pub fn embedded(&mut self, embedded: &[Embedded], characters: usize) {
        self.characters = characters;
        self.inputs = embedded.len();
        self.tokens = embedded.iter().map(|one| one.tokens).sum();
        self.truncated = embedded.iter().filter(|one| one.truncated.is_some()).count();
    }
}

impl Call {
    /// Reads the body of a request; the answer, if there is one already.
    pub async fn begin(
        state: Arc<State>,
        method: &'static str,
        dialect: Dialect,
        request: Request<Body>,
    ) -> Result<Self, Box<Response<Body>>> {
        metrics::asked(method);
        let begun = Self::read(state, method, dialect, request).await;
        begun.map_err(|refusal| Box::new(refused(refusal, dialect)))
    }

    async fn read(
        state: Arc<State>,
        method: &'static str,
        dialect: Dialect,
        request: Request<Body>,
    ) -> Result<Self, Refusal> {
        let start = Instant::now();
        state.models()?;
        is_json(request.headers())?;
        let (body, _bytes) = time::timeout(PATIENCE, read(&state, request))
            .await
            .unwrap_or_else(|_| Err(slow("the body takes", PATIENCE)))?;
        let _request = state.requests.clone().try_acquire_owned().map_err(|_| {
            let limit = state.limits.concurrent_requests;
            Refusal::overloaded(format!(
                "{limit} requests are under way, as many as may be (--max-concurrent-requests)"
            ))
        })?;
        let report = Report::default();
        let call = Self { state, report, method, dialect, start, body, _request, _bytes };
        metrics::queued(call.state.under_way());
        Ok(call)
    }

    /// Whether `inputs` of the body is an object with this field.
    pub fn holds(&self, field: &str) -> bool {
        #[derive(serde::Deserialize)]
        struct Inputs<'a> {
            #[serde(borrow)]
            inputs: &'a RawValue,
        }
        let inputs = serde_json::from_slice::<Inputs>(&self.body);
        inputs.is_ok_and(|body| {
            body.inputs.get().starts_with('{') && body.inputs.get().contains(field)
        })
    }

    /// In whose words errors are.
    pub fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// Runs what a body and the server come to: its parsing, checks, tokenising.  Large ones go to
    /// a thread of their own.
    pub async fn prepare<T: Send + 'static>(
        &mut self,
        run: impl FnOnce(&State, &[u8]) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let body = mem::take(&mut self.body);
        let prepared = if body.len() <= SMALL {
            run(&self.state, &body)
        } else {
            let state = self.state.clone();
            let run = move || run(&state, &body);
            task::spawn_blocking(run).await.unwrap_or_else(|_| Err(internal()))
        };
        self.report.times.tokenization = self.start.elapsed();
        prepared
    }

    /// Runs what keeps a processor busy on a thread of its own.
    pub async fn aside<T: Send + 'static>(
        &mut self,
        run: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let result = task::spawn_blocking(run).await.unwrap_or_else(|_| Err(internal()));
        self.report.times.tokenization = self.start.elapsed();
        result
    }

    /// Has the engine do what was prepared.
    pub async fn compute<T: Send + 'static>(
        &mut self,
        model: &Served,
        prepared: Prepared<T>,
    ) -> Result<T, Refusal> {
        metrics::read(prepared.work.forwards().iter().map(|forward| forward.tokens()));
        let (sender, receiver) = oneshot::channel();
        let (work, finish) = prepared.split();
        // If the client leaves, this future is dropped, and the ticket with it.
        let _ticket = model.scheduler.submit(work, |result| drop(sender.send(result)));
        let done = receiver.await.map_err(|_| internal())?.map_err(Refusal::engine)?;
        self.report.times.queue += done.queued;
        self.report.times.inference += done.computed;
        Ok(finish(done.rows))
    }

    /// The answer.
    pub fn end<T: Serialize>(self, result: Result<T, Refusal>) -> Response<Body> {
        let dialect = self.dialect;
        result.and_then(|answer| self.respond(&answer)).unwrap_or_else(|e| refused(e, dialect))
    }

    fn respond(mut self, answer: &impl Serialize) -> Result<Response<Body>, Refusal> {
        let body = serde_json::to_vec(answer).map_err(|_| internal())?;
        self.report.times.total = self.start.elapsed();
        let Report { characters, tokens, inputs, truncated, times } = self.report;
        metrics::answered(self.method, inputs, truncated, times);
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let numbers = [
            ("x-compute-characters", characters),
            ("x-compute-tokens", tokens),
            ("x-compute-time", times.total.as_millis() as usize),
            ("x-total-time", times.total.as_millis() as usize),
            ("x-tokenization-time", times.tokenization.as_millis() as usize),
            ("x-queue-time", times.queue.as_millis() as usize),
            ("x-inference-time", times.inference.as_millis() as usize),
            ("x-truncated-inputs", truncated),
        ];
        for (name, value) in numbers {
            headers.insert(name, HeaderValue::from(value));
        }
        let kind = self.state.models().map_or("", |models| models[0].embedder().kind());
        headers.insert("x-compute-type", HeaderValue::from_static(kind));
        Ok(response)
    }
}

/// Parses a body.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| {
        let status = match e.classify() {
            Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Refusal::new(status, format!("the body is not the JSON that is meant: {e}"))
    })
}

fn refused(refusal: Refusal, dialect: Dialect) -> Response<Body> {
    metrics::failed(refusal.status().as_u16());
    refusal.response(dialect)
}

fn internal() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error")
}

fn slow(what: &str, limit: Duration) -> Refusal {
    let message = format!("{what} longer than {} s", limit.as_secs());
    Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
}

/// Browsers send other types without asking; this one only where CORS allows it.
fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
    match kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
    {
        true => Ok(()),
        false => {
            let message = "the body must be `content-type: application/json`";
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}

/// The body, within the limits for one and for all together.
async fn read(
    state: &Arc<State>,
    request: Request<Body>,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    // Who asks before it sends is told no before it sends.
    let asks = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    let limit = state.limits.payload;
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        if !asks {
            drop(task::spawn(linger(body)));
        }
        return Err(large(limit));
    }
    let permits = |bytes: usize| {
        let permits = u32::try_from(bytes.div_ceil(1024)).map_err(|_| large(limit))?;
        state.payloads.clone().try_acquire_many_owned(permits).map_err(|_| {
            let all = state.limits.payloads;
            Refusal::overloaded(format!("bodies of more than {all} bytes are under way"))
        })
    };
    let mut held = permits((announced as usize).max(1))?;
    let mut bytes = Vec::with_capacity((announced as usize).min(1 << 20));
    loop {
        let frame = time::timeout(SILENCE, next(&mut body)).await;
        let Some(frame) = frame.map_err(|_| slow("the body says nothing for", SILENCE))? else {
            return Ok((bytes, held));
        };
        let frame = frame.map_err(|_| Refusal::bad("the body breaks off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            drop(task::spawn(linger(body)));
            return Err(large(limit));
        }
        bytes.extend_from_slice(&data);
        let missing = bytes.len().div_ceil(1024).saturating_sub(held.num_permits());
        if missing > 0 {
            held.merge(permits(missing * 1024)?);
        }
    }
}

fn large(limit: usize) -> Refusal {
    let message = format!("the body is over the limit of {limit} bytes (--payload-limit)");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Reads on for a while and keeps nothing: a connection that is closed while its client still sends
/// is reset, and the answer lost.
async fn linger(mut body: Body) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = next(&mut body).await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > LINGER_BYTES {
                return;
            }
        }
    };
    // However it ends, the answer has had its time.
    let _ = time::timeout(LINGER, rest).await;
}

/// A handler: `run` makes an answer of a [`Call`], errors are in the words of a dialect.
macro_rules! route {
    ($name:ident, $run:ident, $method:literal, $dialect:ident, #[$docs:meta], #[$path:meta]) => {
        #[$docs]
        #[$path]
        pub async fn $name(
            axum::extract::State(state): axum::extract::State<
                std::sync::Arc<$crate::server::state::State>,
            >,
            request: axum::http::Request<axum::body::Body>,
        ) -> axum::http::Response<axum::body::Body> {
            let dialect = $crate::server::refusal::Dialect::$dialect;
            match $crate::server::call::Call::begin(state, $method, dialect, request).await {
                Ok(mut call) => {
                    let result = $run(&mut call).await;
                    call.end(result)
                }
                Err(refused) => *refused,
            }
        }
    };
}

pub(super) use route;
