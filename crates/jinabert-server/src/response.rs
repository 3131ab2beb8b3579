//! Response bodies that release their permits as they are sent.

use crate::permits::RequestPermits;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Size in bytes of a part of a response.
const PART: usize = 256 << 10;

/// Response as it is written: in parts, each of which is freed when it is sent.
#[derive(Default)]
pub struct ResponseParts(VecDeque<Vec<u8>>);

impl ResponseParts {
    /// Number of bytes written.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

impl io::Write for ResponseParts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.back().is_none_or(|part| part.len() == PART) {
            // Most responses are short and have one part.
            let capacity = if self.0.is_empty() { 0 } else { PART };
            self.0.push_back(Vec::with_capacity(capacity));
        }
        let part = self.0.back_mut().expect("one was pushed");
        let written = &bytes[..bytes.len().min(PART - part.len())];
        part.extend_from_slice(written);
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Response body that holds its permits until it is sent, part by part.
pub struct ResponseBody {
    parts: VecDeque<Vec<u8>>,
    /// Number of bytes not yet sent.
    left: usize,
    permits: Arc<RequestPermits>,
}

impl ResponseBody {
    /// Body of a written response.
    pub fn new(parts: ResponseParts, permits: Arc<RequestPermits>) -> Self {
        Self { left: parts.len(), parts: parts.0, permits }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.pop_front();
        self.left -= part.as_ref().map_or(0, Vec::len);
        self.permits.shrink_to(self.left);
        Poll::Ready(part.map(|part| Ok(Frame::data(part.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{body::next_frame, state::State, test_config};
    use axum::body::Body;

    #[test]
    fn sent_parts_release_their_permits() {
        let state = State::new(&test_config::config()).expect("metrics");
        let all = 1024;
        let free = || state.payload_permits.available_permits();
        assert_eq!(free(), all);
        let request = state.request_permits.clone().try_acquire_owned().expect("a permit");
        let permits = Arc::new(RequestPermits::new(request, None));
        let send = async {
            // Sizes in turn: of the body, of the estimate, of the written response.
            for bytes in [5 << 10, 1 << 20, 3 * PART + 1] {
                permits.resize(&state, bytes).await.expect("free permits");
                assert_eq!(free(), all - bytes.div_ceil(1024));
            }
            let mut parts = ResponseParts::default();
            io::Write::write_all(&mut parts, &vec![7; 3 * PART + 1]).expect("memory");
            assert_eq!((parts.len(), parts.0.len()), (3 * PART + 1, 4));
            let mut body = Body::new(ResponseBody::new(parts, permits.clone()));
            for left in [2 * PART + 1, PART + 1, 1, 0] {
                next_frame(&mut body).await.expect("a part").expect("no error");
                assert_eq!(free(), all - left.div_ceil(1024));
            }
            assert!(next_frame(&mut body).await.is_none());
        };
        tokio::runtime::Runtime::new().expect("a runtime").block_on(send);
    }
}
