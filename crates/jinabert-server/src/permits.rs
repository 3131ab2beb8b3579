//! Admission permits: a request's share of the server's limits.

use crate::{error::ApiError, state::State};
use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::OwnedSemaphorePermit, time};

/// Maximum time that a response waits for permits, while others are being sent.
const RESPONSE_WAIT: Duration = Duration::from_secs(30);

/// Bytes of a body or response that one permit stands for.
const BYTES_PER_PERMIT: usize = 1024;

/// Number of permits for `bytes` bytes.
pub fn permits_for(bytes: usize) -> usize {
    bytes.div_ceil(BYTES_PER_PERMIT)
}

/// Takes permits for a request, if fewer than the maximum are in progress.
pub fn for_request(state: &State) -> Result<OwnedSemaphorePermit, ApiError> {
    state.request_permits.clone().try_acquire_owned().map_err(|_| {
        let limit = state.limits.concurrent_requests;
        let message =
            format!("expected at most {limit} requests in progress (--max-concurrent-requests)");
        ApiError::overloaded(message, state.retry_after())
    })
}

/// Takes permits for `bytes` bytes of a request's body.
pub fn for_body(state: &State, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let permits = u32::try_from(permits_for(bytes))
        .map_err(|_| ApiError::payload_too_large(state.limits.payload))?;
    state.payload_permits.clone().try_acquire_many_owned(permits).map_err(|_| {
        let limit = state.limits.payloads;
        let message =
            format!("expected at most {limit} bytes in the bodies of all requests, got more");
        ApiError::overloaded(message, state.retry_after())
    })
}

/// Adds the permits that a body of `bytes` bytes still needs.
pub fn extend_for_body(
    state: &State,
    bytes: usize,
    held: &mut OwnedSemaphorePermit,
) -> Result<(), ApiError> {
    let missing = permits_for(bytes).saturating_sub(held.num_permits());
    if missing > 0 {
        held.merge(for_body(state, missing * BYTES_PER_PERMIT)?);
    }
    Ok(())
}

/// Permits of a request, held until its client has gone, no thread reads it any more, and its
/// response is sent.
pub struct RequestPermits {
    _request: OwnedSemaphorePermit,
    bytes: Mutex<Option<OwnedSemaphorePermit>>,
    abandoned: AtomicBool,
}

impl RequestPermits {
    /// Combines the permit of a request with those of its body.
    pub fn new(request: OwnedSemaphorePermit, body: Option<OwnedSemaphorePermit>) -> Self {
        Self { _request: request, bytes: Mutex::new(body), abandoned: AtomicBool::new(false) }
    }

    /// True once the call has ended: its response is sent, or the client is gone.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Exchanges the permits of the body, which has been read, for those of a response.
    pub async fn resize(&self, state: &State, bytes: usize) -> Result<(), ApiError> {
        self.shrink_to(bytes);
        let all = permits_for(state.limits.payloads);
        let held = self.lock().as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = permits_for(bytes).min(all).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let permits = state.payload_permits.clone();
        if let Ok(more) = permits.clone().try_acquire_many_owned(missing as u32) {
            self.add(more);
            return Ok(());
        }
        // A waiting request must not hold permits that others wait for.
        self.shrink_to(0);
        let acquired = permits.acquire_many_owned((held + missing) as u32);
        // The semaphore is never closed.
        let Ok(Ok(more)) = time::timeout(RESPONSE_WAIT, acquired).await else {
            let seconds = RESPONSE_WAIT.as_secs();
            let message = format!(
                "expected memory for the response within {seconds} s, got none: \
                 clients read other responses slowly"
            );
            return Err(ApiError::overloaded(message, state.retry_after()));
        };
        self.add(more);
        Ok(())
    }

    /// Releases all permits but those for `bytes` bytes.
    pub fn shrink_to(&self, bytes: usize) {
        let mut held = self.lock();
        let count = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let excess = count.saturating_sub(permits_for(bytes));
        drop(held.as_mut().and_then(|held| held.split(excess)));
    }

    fn add(&self, more: OwnedSemaphorePermit) {
        match &mut *self.lock() {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permits of a call; marks the request as abandoned when it is dropped.
pub struct CallPermits(Arc<RequestPermits>);

impl CallPermits {
    /// Shares the permits with the response and with threads that work for the call.
    pub fn new(permits: RequestPermits) -> Self {
        Self(Arc::new(permits))
    }

    /// Permits that outlive the call.
    pub fn share(&self) -> Arc<RequestPermits> {
        self.0.clone()
    }
}

impl Deref for CallPermits {
    type Target = RequestPermits;

    fn deref(&self) -> &RequestPermits {
        &self.0
    }
}

impl Drop for CallPermits {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}
