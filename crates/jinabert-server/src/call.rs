//! Lifecycle of one request, from body to response: limits, parsing, computation, timing.

use super::{
    body::{self, is_json, turn_away},
    metrics::{self, Times},
    refusal::{ApiError, Dialect},
    state::{ServedModel, State},
    wire::object,
};
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use hyper::body::{Frame, SizeHint};
use jinabert::{Embedded, EncodeJob};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use std::{
    collections::VecDeque,
    convert::Infallible,
    io, mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    task, time,
};

/// Maximum time that a response waits for permits, while others are being sent.
const ROOM: Duration = Duration::from_secs(30);

/// Limits up to which a response is built and written on the async thread: numbers, and inputs.
const FEW: usize = 1 << 14;
const FEW_INPUTS: usize = 32;

/// Maximum body in bytes that is parsed and tokenised on the async thread, not on one of its own.
const SMALL: usize = 8 << 10;

/// Request in progress.
pub struct Call {
    /// The server.
    pub state: Arc<State>,
    /// Statistics for the response headers and the metrics.
    pub report: RequestStats,
    method: &'static str,
    dialect: Dialect,
    start: Instant,
    body: Vec<u8>,
    places: Arc<Places>,
    // Sets `left` when the call ends, with its response sent or the client gone.
    _leaving: Leaving,
}

/// Admission permits of a request, held until its client has gone, no thread reads it any more, and
/// its response is sent.
struct Places {
    _request: OwnedSemaphorePermit,
    bytes: Mutex<Option<OwnedSemaphorePermit>>,
    left: AtomicBool,
}

/// Response that holds its permits until it is sent, part by part.
struct Permits {
    parts: VecDeque<Vec<u8>>,
    left: usize,
    places: Arc<Places>,
}

/// Response as it is written: in parts, each of which is freed when it is sent.
#[derive(Default)]
struct Parts(VecDeque<Vec<u8>>);

impl Parts {
    fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.back().is_none_or(|part| part.len() == PART) {
            // Most responses are short and have one part.
            let room = if self.0.is_empty() { 0 } else { PART };
            self.0.push_back(Vec::with_capacity(room));
        }
        let part = self.0.back_mut().expect("one was pushed");
        let some = &bytes[..bytes.len().min(PART - part.len())];
        part.extend_from_slice(some);
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HttpBody for Permits {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.pop_front();
        self.left -= part.as_ref().map_or(0, Vec::len);
        self.places.keep(self.left);
        Poll::Ready(part.map(|part| Ok(Frame::data(part.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// Size in bytes of a part of a response.
const PART: usize = 256 << 10;

/// Marks the request as abandoned when it is dropped.
struct Leaving(Arc<Places>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left.store(true, Ordering::Relaxed);
    }
}

impl Places {
    /// Exchanges the permits of the body, which has been read, for those of a response.
    async fn hold(&self, state: &State, bytes: usize) -> Result<(), ApiError> {
        self.keep(bytes);
        let all = state.limits.payloads.div_ceil(1024);
        let had = self.own().as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(1024).min(all).saturating_sub(had);
        let take = |more| match &mut *self.own() {
            Some(own) => own.merge(more),
            none => *none = Some(more),
        };
        if missing == 0 {
            return Ok(());
        }
        if let Ok(more) = state.payloads.clone().try_acquire_many_owned(missing as u32) {
            take(more);
            return Ok(());
        }
        // A waiting request must not hold permits that others wait for.
        self.keep(0);
        let more = state.payloads.clone().acquire_many_owned((had + missing) as u32);
        // The semaphore is never closed.
        let Ok(Ok(more)) = time::timeout(ROOM, more).await else {
            let seconds = ROOM.as_secs();
            let message =
                format!("no room for the answer within {seconds} s: others are not taken");
            return Err(ApiError::overloaded(message, state.retry_after()));
        };
        take(more);
        Ok(())
    }

    /// Releases all permits but those for `bytes` bytes.
    fn keep(&self, bytes: usize) {
        let mut own = self.own();
        let over = own.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let over = over.saturating_sub(bytes.div_ceil(1024));
        drop(own.as_mut().and_then(|own| own.split(over)));
    }

    fn own(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Statistics for the response headers and the metrics.
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
    pub room: usize,
    /// Device that computed it: `cpu` or `gpu`.
    kind: Option<&'static str>,
    times: Times,
}

impl RequestStats {
    /// Records inputs that were read: characters, and for each input its tokens and, if some were
    /// dropped, the length of the whole.
    pub fn read(
        &mut self,
        characters: usize,
        inputs: usize,
        lengths: impl IntoIterator<Item = (usize, Option<usize>)>,
    ) {
        (self.characters, self.inputs) = (characters, inputs);
        for (tokens, whole) in lengths {
            self.tokens += tokens;
            self.truncated += usize::from(whole.is_some());
        }
    }

    /// Records embeddings, as [`RequestStats::read`].
    pub fn embedded(&mut self, embedded: &[Embedded], characters: usize) {
        let lengths = embedded.iter().map(|one| (one.tokens, one.truncated));
        self.read(characters, embedded.len(), lengths);
    }
}

impl Call {
    /// Reads the body of a request; returns a response early if it is refused.
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
    ) -> Result<Self, ApiError> {
        let start = Instant::now();
        if let Err(refusal) = state.models().map(drop).and_then(|()| is_json(request.headers())) {
            turn_away(request);
            return Err(refusal);
        }
        let (body, bytes) = body::read(&state, request).await?;
        let _request = state.requests.clone().try_acquire_owned().map_err(|_| {
            let limit = state.limits.concurrent_requests;
            let message = format!(
                "{limit} requests are under way, as many as may be (--max-concurrent-requests)"
            );
            ApiError::overloaded(message, state.retry_after())
        })?;
        let report = RequestStats::default();
        let (bytes, left) = (Mutex::new(Some(bytes)), AtomicBool::new(false));
        let places = Arc::new(Places { _request, bytes, left });
        let _leaving = Leaving(places.clone());
        Ok(Self { state, report, method, dialect, start, body, places, _leaving })
    }

    /// Sets the dialect of errors.
    pub fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// Runs parsing, checks and tokenising; for large bodies, on a thread of its own.
    pub async fn prepare<T: Send + 'static>(
        &mut self,
        run: impl FnOnce(&State, &[u8]) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let body = mem::take(&mut self.body);
        let prepared = if body.len() <= SMALL {
            run(&self.state, &body)
        } else {
            self.aside(move |state| run(state, &body)).await
        };
        self.report.times.tokenization = self.start.elapsed();
        prepared
    }

    /// Runs CPU-bound work in the thread pool for tokenising, unless the client has left.
    async fn aside<T: Send + 'static>(
        &self,
        run: impl FnOnce(&State) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (places, state) = (self.places.clone(), self.state.clone());
        let run = move || match places.left.load(Ordering::Relaxed) {
            true => Err(internal()),
            false => state.readers.install(|| run(&state)),
        };
        task::spawn_blocking(run).await.unwrap_or_else(|_| Err(internal()))
    }

    /// Submits prepared work to the scheduler and waits for its result.
    pub async fn compute<T: Send + 'static>(
        &mut self,
        model: &ServedModel,
        prepared: EncodeJob<T>,
    ) -> Result<T, ApiError> {
        metrics::read(prepared.work.sequences().iter().map(|forward| forward.tokens()));
        let (sender, receiver) = oneshot::channel();
        let (work, finish) = prepared.split();
        // If the client leaves, dropping this future drops the ticket, which cancels the work.
        let _ticket = model.scheduler.submit(work, |result| drop(sender.send(result)));
        let done = receiver.await.map_err(|_| internal())?;
        let done = done.map_err(ApiError::engine)?;
        let numbers = done.rows.iter().map(Vec::len).sum::<usize>();
        self.report.times.queue += done.queued;
        self.report.times.inference += done.computed;
        self.report.kind = Some(model.embedder().kind());
        match numbers <= FEW {
            true => Ok(finish(done.rows)),
            false => self.aside(move |_| Ok(finish(done.rows))).await,
        }
    }

    /// Writes the response.
    pub async fn end<T>(self, result: Result<T, ApiError>) -> Response<Body>
    where
        T: Serialize + Send + 'static,
    {
        let dialect = self.dialect;
        let answered = match result {
            Ok(answer) => self.respond(answer).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|refusal| refused(refusal, dialect))
    }

    async fn respond<T: Serialize + Send + 'static>(
        mut self,
        answer: T,
    ) -> Result<Response<Body>, ApiError> {
        // Permits come first; the written response may need a little more, or less.
        self.places.hold(&self.state, self.report.room).await?;
        let write = move || {
            let mut parts = Parts::default();
            serde_json::to_writer(&mut parts, &answer).map_err(|_| internal())?;
            Ok(parts)
        };
        let body = match self.report.inputs <= FEW_INPUTS && self.method != "embed_all" {
            true => write()?,
            false => self.aside(move |_| write()).await?,
        };
        self.places.hold(&self.state, body.len()).await?;
        self.report.times.total = self.start.elapsed();
        let RequestStats { characters, tokens, inputs, truncated, times, .. } = self.report;
        metrics::answered(self.method, inputs, truncated, times);
        let body = Permits { left: body.len(), parts: body.0, places: self.places.clone() };
        let mut response = Response::new(Body::new(body));
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
        let first = || self.state.models().map_or("", |models| models[0].embedder().kind());
        let kind = self.report.kind.unwrap_or_else(first);
        headers.insert("x-compute-type", HeaderValue::from_static(kind));
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

fn refused(refusal: ApiError, dialect: Dialect) -> Response<Body> {
    metrics::failed(refusal.status().as_u16());
    refusal.response(dialect)
}

fn internal() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error")
}

/// Defines a handler: `run` turns a [`Call`] into a response; errors are in the given dialect.
macro_rules! route {
    ($name:ident, $run:ident, $method:literal, $dialect:ident, #[$docs:meta], #[$path:meta]) => {
        #[$docs]
        #[$path]
        pub async fn $name(
            axum::extract::State(state): axum::extract::State<std::sync::Arc<$crate::state::State>>,
            request: axum::http::Request<axum::body::Body>,
        ) -> axum::http::Response<axum::body::Body> {
            let dialect = $crate::refusal::Dialect::$dialect;
            match $crate::call::Call::begin(state, $method, dialect, request).await {
                Ok(mut call) => {
                    let result = $run(&mut call).await;
                    call.end(result).await
                }
                Err(refused) => *refused,
            }
        }
    };
}

pub(super) use route;

#[cfg(test)]
mod tests {
    use super::{super::fuzz, *};

    #[test]
    fn an_answer_gives_back_its_room_as_it_is_sent() {
        let state = State::new(&fuzz::serve()).expect("metrics");
        let (all, free) = (1024, || state.payloads.available_permits());
        assert_eq!(free(), all);
        let _request = state.requests.clone().try_acquire_owned().expect("a place");
        let (bytes, left) = (Mutex::default(), AtomicBool::new(false));
        let places = Arc::new(Places { _request, bytes, left });
        let sent = async {
            // Sizes in turn: of the body, of the estimate, of the written response.
            for bytes in [5 << 10, 1 << 20, 3 * PART + 1] {
                places.hold(&state, bytes).await.expect("room");
                assert_eq!(free(), all - bytes.div_ceil(1024));
            }
            let mut answer = Parts::default();
            io::Write::write_all(&mut answer, &vec![7; 3 * PART + 1]).expect("room");
            let (left, parts) = (answer.len(), answer.0);
            assert_eq!((left, parts.len()), (3 * PART + 1, 4));
            let mut held = Body::new(Permits { parts, left, places: places.clone() });
            for left in [2 * PART + 1, PART + 1, 1, 0] {
                body::next(&mut held).await.expect("a part").expect("no error");
                assert_eq!(free(), all - left.div_ceil(1024));
            }
            assert!(body::next(&mut held).await.is_none());
        };
        tokio::runtime::Runtime::new().expect("a runtime").block_on(sent);
    }
}
