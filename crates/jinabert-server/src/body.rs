//! Request bodies: size limits, timeouts, and draining of a body whose request is refused.

use super::{refusal::ApiError, state::State};
use axum::{
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
};
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use hyper::body::Frame;
use std::{
    future::poll_fn,
    io::{self, ErrorKind, Write},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::OwnedSemaphorePermit, task, time};

/// Maximum time between two parts of a body.
const SILENCE: Duration = Duration::from_secs(15);

/// Maximum time for a whole body.
const PATIENCE: Duration = Duration::from_secs(120);

/// Limits for draining the body of a refused request: time, and bytes.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 128 << 20;

/// Maximum bytes of a body for which permits are taken before they arrive.
const AHEAD: usize = 1 << 20;

/// Bytes of a body that are decompressed at once: at most a thousand times as many come out.
const PACKED: usize = 1 << 10;

/// Body as it arrives, decompressed.
enum Unpacked {
    Plain(Within),
    Gzip(MultiGzDecoder<Within>),
    Deflate(ZlibDecoder<Within>),
}

/// Byte buffer with a maximum size.
struct Within {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Within {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > self.limit {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Unpacked {
    /// Creates an empty body for the encoding that the headers name.
    fn new(headers: &HeaderMap, capacity: usize, limit: usize) -> Result<Self, ApiError> {
        let name = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let name = String::from_utf8_lossy(name.unwrap_or_default()).trim().to_ascii_lowercase();
        let within = Within { bytes: Vec::with_capacity(capacity), limit };
        match &name[..] {
            "" | "identity" => Ok(Self::Plain(within)),
            "gzip" | "x-gzip" => Ok(Self::Gzip(MultiGzDecoder::new(within))),
            "deflate" => Ok(Self::Deflate(ZlibDecoder::new(within))),
            _ => {
                let name: String = name.chars().take(100).collect();
                let message =
                    format!("content-encoding `{name}`: expected gzip, deflate or identity");
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
            }
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(within) => within,
            Self::Gzip(decoder) => decoder,
            Self::Deflate(decoder) => decoder,
        }
    }

    /// Number of decompressed bytes so far.
    fn len(&self) -> usize {
        let within = match self {
            Self::Plain(within) => within,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Deflate(decoder) => decoder.get_ref(),
        };
        within.bytes.len()
    }

    /// Finishes decompression and returns the whole body.
    fn end(self) -> io::Result<Vec<u8>> {
        let within = match self {
            Self::Plain(within) => within,
            Self::Gzip(decoder) => decoder.finish()?,
            Self::Deflate(decoder) => decoder.finish()?,
        };
        Ok(within.bytes)
    }
}

/// Checks for JSON, which browsers send to other origins only if CORS allows it.
pub fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
    match kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
    {
        true => Ok(()),
        false => {
            let message = "the body must be `content-type: application/json`";
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}

/// Reads the body, within the limits for one body and for all bodies together.
pub async fn read(
    state: &Arc<State>,
    request: Request<Body>,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), ApiError> {
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
    let unpacked = match Unpacked::new(request.headers(), ahead, limit) {
        Ok(unpacked) => unpacked,
        Err(refusal) => {
            turn_away(request);
            return Err(refusal);
        }
    };
    let mut body = request.into_body();
    let read = time::timeout(PATIENCE, fill(state, &mut body, unpacked, held));
    let read = read.await.unwrap_or_else(|_| Err(slow("the body takes", PATIENCE)));
    if read.is_err() {
        drop(task::spawn(linger(body)));
    }
    read
}

/// Takes permits for `bytes` bytes of bodies.
fn permits(state: &State, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let limit = state.limits.payload;
    let permits = u32::try_from(bytes.div_ceil(1024)).map_err(|_| large(limit))?;
    state.payloads.clone().try_acquire_many_owned(permits).map_err(|_| {
        let all = state.limits.payloads;
        let message = format!("bodies of more than {all} bytes are under way");
        ApiError::overloaded(message, state.retry_after())
    })
}

/// Reads the rest of a body; returns it with its permits.
async fn fill(
    state: &State,
    body: &mut Body,
    mut bytes: Unpacked,
    mut held: OwnedSemaphorePermit,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), ApiError> {
    let limit = state.limits.payload;
    loop {
        let frame = time::timeout(SILENCE, next(body)).await;
        let Some(frame) = frame.map_err(|_| slow("the body says nothing for", SILENCE))? else {
            let bytes = bytes.end().map_err(|error| packed(limit, &error))?;
            hold(state, bytes.len(), &mut held)?;
            return Ok((bytes, held));
        };
        let frame = frame.map_err(|_| ApiError::bad("the body breaks off"))?;
        let Ok(data) = frame.into_data() else { continue };
        for part in data.chunks(PACKED) {
            bytes.writer().write_all(part).map_err(|error| packed(limit, &error))?;
            hold(state, bytes.len(), &mut held)?;
        }
    }
}

/// Takes the permits that a body of `bytes` bytes still needs.
fn hold(state: &State, bytes: usize, held: &mut OwnedSemaphorePermit) -> Result<(), ApiError> {
    let missing = bytes.div_ceil(1024).saturating_sub(held.num_permits());
    if missing > 0 {
        held.merge(permits(state, missing * 1024)?);
    }
    Ok(())
}

/// Error for a body that cannot be decompressed.
fn packed(limit: usize, error: &io::Error) -> ApiError {
    match error.kind() {
        ErrorKind::FileTooLarge => large(limit),
        _ => ApiError::bad(format!("the body is not packed as `content-encoding` says: {error}")),
    }
}

fn large(limit: usize) -> ApiError {
    let message = format!("the body is over the limit of {limit} bytes (--payload-limit)");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
}

pub async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Drains the body of a refused request, so that its client finishes sending.
pub fn turn_away(request: Request<Body>) {
    // A client that sends `Expect` has not sent the body yet.
    if !request.headers().contains_key(header::EXPECT) && !request.body().is_end_stream() {
        drop(task::spawn(linger(request.into_body())));
    }
}

/// Drains a body for a while and discards it: closing a connection while the client still sends
/// resets it, and the response is lost.
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
    // The result does not matter: the response has had time to arrive.
    let _ = time::timeout(LINGER, rest).await;
}

fn slow(what: &str, limit: Duration) -> ApiError {
    let message = format!("{what} longer than {} s", limit.as_secs());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
}
