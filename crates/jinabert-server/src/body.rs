//! Request bodies: size limits, timeouts, and draining of a body whose request is refused.

use crate::{error::ApiError, permits, state::State};
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
const PART_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum time for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// Limits for draining the body of a refused request: time, and bytes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const DRAIN_BYTES: usize = 128 << 20;

/// Maximum bytes of a body for which permits are taken before they arrive.
const MAX_RESERVED: usize = 1 << 20;

/// Bytes of a body that are decompressed at once: at most a thousand times as many come out.
const COMPRESSED_PART: usize = 1 << 10;

/// Body as it arrives, decompressed.
enum Decoder {
    Plain(LimitedBuffer),
    Gzip(MultiGzDecoder<LimitedBuffer>),
    Deflate(ZlibDecoder<LimitedBuffer>),
}

/// Byte buffer with a maximum size.
struct LimitedBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for LimitedBuffer {
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

impl Decoder {
    /// Creates an empty body for the encoding that the headers name.
    fn new(headers: &HeaderMap, capacity: usize, limit: usize) -> Result<Self, ApiError> {
        let name = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let name = String::from_utf8_lossy(name.unwrap_or_default()).trim().to_ascii_lowercase();
        let buffer = LimitedBuffer { bytes: Vec::with_capacity(capacity), limit };
        match &name[..] {
            "" | "identity" => Ok(Self::Plain(buffer)),
            "gzip" | "x-gzip" => Ok(Self::Gzip(MultiGzDecoder::new(buffer))),
            "deflate" => Ok(Self::Deflate(ZlibDecoder::new(buffer))),
            _ => {
                let got: String = name.chars().take(100).collect();
                let message =
                    format!("expected `content-encoding` gzip, deflate or identity, got `{got}`");
                Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
            }
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(buffer) => buffer,
            Self::Gzip(decoder) => decoder,
            Self::Deflate(decoder) => decoder,
        }
    }

    /// Number of decompressed bytes so far.
    fn len(&self) -> usize {
        let buffer = match self {
            Self::Plain(buffer) => buffer,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Deflate(decoder) => decoder.get_ref(),
        };
        buffer.bytes.len()
    }

    /// Finishes decompression and returns the whole body.
    fn finish(self) -> io::Result<Vec<u8>> {
        let buffer = match self {
            Self::Plain(buffer) => buffer,
            Self::Gzip(decoder) => decoder.finish()?,
            Self::Deflate(decoder) => decoder.finish()?,
        };
        Ok(buffer.bytes)
    }
}

/// Checks for JSON, which browsers send to other origins only if CORS allows it.
pub fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let bare = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let kind = String::from_utf8_lossy(bare).to_ascii_lowercase();
    if kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json") {
        return Ok(());
    }
    let got: String = kind.chars().take(100).collect();
    let message = format!("expected `content-type: application/json`, got `{got}`");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
}

/// Reads the body, within the limits for one body and for all bodies together.
pub async fn read(
    state: &Arc<State>,
    request: Request<Body>,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), ApiError> {
    let (decoder, permits) = match admit(state, &request) {
        Ok(admitted) => admitted,
        Err(error) => {
            turn_away(request);
            return Err(error);
        }
    };
    let mut body = request.into_body();
    let reading = time::timeout(BODY_TIMEOUT, fill(state, &mut body, decoder, permits));
    let read = reading.await.unwrap_or_else(|_| Err(timed_out("the whole body", BODY_TIMEOUT)));
    if read.is_err() {
        drop(task::spawn(drain(body)));
    }
    read
}

/// Checks the announced size and encoding of a body, and takes its first permits.
fn admit(
    state: &State,
    request: &Request<Body>,
) -> Result<(Decoder, OwnedSemaphorePermit), ApiError> {
    let limit = state.limits.payload;
    let announced = request.body().size_hint().lower();
    if announced > limit as u64 {
        return Err(ApiError::payload_too_large(limit));
    }
    let reserved = (announced as usize).min(MAX_RESERVED);
    let permits = permits::for_body(state, reserved.max(1))?;
    Ok((Decoder::new(request.headers(), reserved, limit)?, permits))
}

/// Reads the rest of a body; returns it with its permits.
async fn fill(
    state: &State,
    body: &mut Body,
    mut decoder: Decoder,
    mut permits: OwnedSemaphorePermit,
) -> Result<(Vec<u8>, OwnedSemaphorePermit), ApiError> {
    let limit = state.limits.payload;
    loop {
        let received = time::timeout(PART_TIMEOUT, next_frame(body)).await;
        let received = received.map_err(|_| timed_out("more of the body", PART_TIMEOUT))?;
        let Some(frame) = received else {
            let bytes = decoder.finish().map_err(|error| undecodable(limit, &error))?;
            permits::extend_for_body(state, bytes.len(), &mut permits)?;
            return Ok((bytes, permits));
        };
        let frame = frame.map_err(|_| ApiError::bad("expected a whole body, got a part of it"))?;
        let Ok(data) = frame.into_data() else { continue };
        for part in data.chunks(COMPRESSED_PART) {
            decoder.writer().write_all(part).map_err(|error| undecodable(limit, &error))?;
            permits::extend_for_body(state, decoder.len(), &mut permits)?;
        }
    }
}

/// Error for a body that cannot be decompressed.
fn undecodable(limit: usize, error: &io::Error) -> ApiError {
    match error.kind() {
        ErrorKind::FileTooLarge => ApiError::payload_too_large(limit),
        _ => ApiError::bad(format!("the body does not match its `content-encoding`: {error}")),
    }
}

/// Error for a body that arrives too slowly.
fn timed_out(expected: &str, limit: Duration) -> ApiError {
    let message = format!("expected {expected} within {} s, got a timeout", limit.as_secs());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
}

/// Next frame of a body; `None` at its end.
pub async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, axum::Error>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Drains the body of a refused request, so that its client finishes sending.
pub fn turn_away(request: Request<Body>) {
    // A client that sends `Expect` has not sent the body yet.
    if !request.headers().contains_key(header::EXPECT) && !request.body().is_end_stream() {
        drop(task::spawn(drain(request.into_body())));
    }
}

/// Drains a body for a while and discards it: closing a connection while the client still sends
/// resets it, and the response is lost.
async fn drain(mut body: Body) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = next_frame(&mut body).await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DRAIN_BYTES {
                return;
            }
        }
    };
    // The result does not matter: the response has had time to arrive.
    let _ = time::timeout(DRAIN_TIMEOUT, rest).await;
}
