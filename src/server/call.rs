//! One request from its body to its answer: limits, parsing, the engine, times.

use super::{
    body::{self, is_json, turn_away},
    metrics::{self, Times},
    refusal::{Dialect, Refusal},
    state::{Served, State},
};
use crate::{Embedded, Prepared};
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use hyper::body::{Frame, SizeHint};
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

/// How long an answer waits for room: others are sent before it.
const ROOM: Duration = Duration::from_secs(30);

/// Numbers, and inputs, of an answer that is made and written where it is waited for.
const FEW: usize = 1 << 14;
const FEW_INPUTS: usize = 32;

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
    places: Arc<Places>,
    // Set when the call ends, whether it has its answer or the client left.
    _leaving: Leaving,
}

/// What a request takes up until nothing of it is left: not its client, not a thread that reads it,
/// not an answer that is still to be sent.
struct Places {
    _request: OwnedSemaphorePermit,
    bytes: Mutex<Option<OwnedSemaphorePermit>>,
    left: AtomicBool,
}

/// An answer that has its place until it is sent, part by part.
struct Held {
    parts: VecDeque<Vec<u8>>,
    left: usize,
    places: Arc<Places>,
}

/// An answer as it is written: in parts, each of which is free when it is sent.
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
            // Most answers are one, and short.
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

impl HttpBody for Held {
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

/// Bytes of an answer that are handed over at once.
const PART: usize = 256 << 10;

/// Says that nobody waits any more.
struct Leaving(Arc<Places>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left.store(true, Ordering::Relaxed);
    }
}

impl Places {
    /// Has room for an answer instead of the body, which has been read.
    async fn hold(&self, state: &State, bytes: usize) -> Result<(), Refusal> {
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
        // Who waits has nothing that others wait for.
        self.keep(0);
        let more = state.payloads.clone().acquire_many_owned((had + missing) as u32);
        // It is never closed.
        let Ok(Ok(more)) = time::timeout(ROOM, more).await else {
            let seconds = ROOM.as_secs();
            let message =
                format!("no room for the answer within {seconds} s: others are not taken");
            return Err(Refusal::overloaded(message, state.retry_after()));
        };
        take(more);
        Ok(())
    }

    /// Gives back all but the room for so many bytes.
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
    /// Bytes that a long answer takes, for all that is known before it is written.
    pub room: usize,
    /// Where it was computed: `cpu` or `gpu`.
    kind: Option<&'static str>,
    times: Times,
}

impl Report {
    /// So many inputs of so many characters were read, of these lengths: tokens, and those of the
    /// whole, where some were dropped.
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

    /// As [`Report::read`].
    pub fn embedded(&mut self, embedded: &[Embedded], characters: usize) {
        let lengths = embedded.iter().map(|one| (one.tokens, one.truncated));
        self.read(characters, embedded.len(), lengths);
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
            Refusal::overloaded(message, state.retry_after())
        })?;
        let report = Report::default();
        let (bytes, left) = (Mutex::new(Some(bytes)), AtomicBool::new(false));
        let places = Arc::new(Places { _request, bytes, left });
        let _leaving = Leaving(places.clone());
        Ok(Self { state, report, method, dialect, start, body, places, _leaving })
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
            self.aside(move |state| run(state, &body)).await
        };
        self.report.times.tokenization = self.start.elapsed();
        prepared
    }

    /// Runs what keeps a processor busy on a thread that reads, unless the client has left.
    async fn aside<T: Send + 'static>(
        &self,
        run: impl FnOnce(&State) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (places, state) = (self.places.clone(), self.state.clone());
        let run = move || match places.left.load(Ordering::Relaxed) {
            true => Err(internal()),
            false => state.readers.install(|| run(&state)),
        };
        task::spawn_blocking(run).await.unwrap_or_else(|_| Err(internal()))
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
        let done = receiver.await.map_err(|_| internal())?;
        let done = done.map_err(Refusal::engine)?;
        let numbers = done.rows.iter().map(Vec::len).sum::<usize>();
        self.report.times.queue += done.queued;
        self.report.times.inference += done.computed;
        self.report.kind = Some(model.embedder().kind());
        match numbers <= FEW {
            true => Ok(finish(done.rows)),
            false => self.aside(move |_| Ok(finish(done.rows))).await,
        }
    }

    /// The answer.
    pub async fn end<T>(self, result: Result<T, Refusal>) -> Response<Body>
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
    ) -> Result<Response<Body>, Refusal> {
        // The room comes first; what is written may take a little more, or less.
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
        let Report { characters, tokens, inputs, truncated, times, .. } = self.report;
        metrics::answered(self.method, inputs, truncated, times);
        let body = Held { left: body.len(), parts: body.0, places: self.places.clone() };
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
            // What was read, then what is guessed, then what is written.
            for bytes in [5 << 10, 1 << 20, 3 * PART + 1] {
                places.hold(&state, bytes).await.expect("room");
                assert_eq!(free(), all - bytes.div_ceil(1024));
            }
            let mut answer = Parts::default();
            io::Write::write_all(&mut answer, &vec![7; 3 * PART + 1]).expect("room");
            let (left, parts) = (answer.len(), answer.0);
            assert_eq!((left, parts.len()), (3 * PART + 1, 4));
            let mut held = Body::new(Held { parts, left, places: places.clone() });
            for left in [2 * PART + 1, PART + 1, 1, 0] {
                body::next(&mut held).await.expect("a part").expect("no error");
                assert_eq!(free(), all - left.div_ceil(1024));
            }
            assert!(body::next(&mut held).await.is_none());
        };
        tokio::runtime::Runtime::new().expect("a runtime").block_on(sent);
    }
}
