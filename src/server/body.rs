//! The body of a request: within the limits, in time, and never half read where an answer is due.

use super::{refusal::Refusal, state::State};
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
};
use hyper::body::Frame;
use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, task, time};

/// The longest silence in the middle of a body.
const SILENCE: Duration = Duration::from_secs(15);

/// The longest that a body may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long, and how much, is read of a body that is refused.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 128 << 20;

/// Bytes of a body that have a place before they are there.
const AHEAD: usize = 1 << 20;

/// Browsers send other types without asking; this one only where CORS allows it.
pub fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
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
pub async fn read(
    state: &Arc<State>,
    request: Request<Body>,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    let limit = state.limits.payload;
    let announced = request.body().size_hint().lower();
    if announced > limit as u64 {
        turn_away(request);
        return Err(large(limit));
    }
    let ahead = (announced as usize).min(AHEAD);
    let held = match permits(state, ahead.max(1)) {
        Ok(held) => held,
        Err(refusal) => {
            turn_away(request);
            return Err(refusal);
        }
    };
    let mut body = request.into_body();
    let read = time::timeout(PATIENCE, fill(state, &mut body, Vec::with_capacity(ahead), held));
    let read = read.await.unwrap_or_else(|_| Err(slow("the body takes", PATIENCE)));
    if read.is_err() {
        drop(task::spawn(linger(body)));
    }
    read
}

/// Places for so many bytes of bodies.
fn permits(state: &State, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let limit = state.limits.payload;
    let permits = u32::try_from(bytes.div_ceil(1024)).map_err(|_| large(limit))?;
    state.payloads.clone().try_acquire_many_owned(permits).map_err(|_| {
        let all = state.limits.payloads;
        let message = format!("bodies of more than {all} bytes are under way");
        Refusal::overloaded(message, state.retry_after())
    })
}

/// All of a body, and its places.
async fn fill(
    state: &State,
    body: &mut Body,
    mut bytes: Vec<u8>,
    mut held: OwnedSemaphorePermit,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refusal> {
    let limit = state.limits.payload;
    loop {
        let frame = time::timeout(SILENCE, next(body)).await;
        let Some(frame) = frame.map_err(|_| slow("the body says nothing for", SILENCE))? else {
            return Ok((bytes, held));
        };
        let frame = frame.map_err(|_| Refusal::bad("the body breaks off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(large(limit));
        }
        bytes.extend_from_slice(&data);
        let missing = bytes.len().div_ceil(1024).saturating_sub(held.num_permits());
        if missing > 0 {
            held.merge(permits(state, missing * 1024)?);
        }
    }
}

fn large(limit: usize) -> Refusal {
    let message = format!("the body is over the limit of {limit} bytes (--payload-limit)");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

pub async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Lets a client that is refused finish what it says.
pub fn turn_away(request: Request<Body>) {
    // Who asks before it sends is told no before it sends.
    if !request.headers().contains_key(header::EXPECT) && !request.body().is_end_stream() {
        drop(task::spawn(linger(request.into_body())));
    }
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

fn slow(what: &str, limit: Duration) -> Refusal {
    let message = format!("{what} longer than {} s", limit.as_secs());
    Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
}
