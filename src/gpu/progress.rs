//! Waiting for a device.

use crate::error::Error;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Default time limit for one result.  A submission takes a tenth of a second by prediction;
/// software drivers on busy machines take a hundred times that.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Timeout of one poll, so that a lost device ends the wait.
const LOOK: Duration = Duration::from_secs(1);

/// Threshold for a wait: a shorter one found its submission already finished.
const AT_ONCE: Duration = Duration::from_micros(50);

/// Timeout of one poll of an application's device: during it, wgpu blocks presenting frames.
const GLANCE: Duration = Duration::from_millis(1);

/// Progress of a device; any thread may wait on it.
#[derive(Clone)]
pub(super) struct Progress {
    device: wgpu::Device,
    lost: Arc<Mutex<Option<String>>>,
    hung: Arc<AtomicBool>,
    patience: Duration,
    shared: bool,
}

impl Progress {
    /// Creates the progress of a device that was just opened.
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let progress = Self { shared: false, ..Self::shared(device) };
        let keep = Arc::clone(&progress.lost);
        device.set_device_lost_callback(move |reason, message| {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("device lost ({reason:?}) {message}"));
        });
        progress
    }

    /// Progress of a device with an application's callbacks: a loss shows only in failing calls.
    pub(super) fn shared(device: &wgpu::Device) -> Self {
        Self {
            device: device.clone(),
            lost: Arc::default(),
            hung: Arc::default(),
            patience: PATIENCE,
            shared: true,
        }
    }

    /// Sets the time limit for one result.
    pub(super) fn limit(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Reason of the loss of the device, if it is known to be lost.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a submission and all before it; returns true if it was not yet finished.
    pub(super) fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<bool, Error> {
        let start = Instant::now();
        loop {
            let left = if self.hung.load(Ordering::Relaxed) {
                Duration::ZERO
            } else {
                self.patience.saturating_sub(start.elapsed())
            };
            let look = if self.shared { GLANCE } else { LOOK };
            let polled = self.poll(wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(left.min(look)),
            });
            if let Some(reason) = self.lost() {
                return Err(Error::Gpu(reason));
            }
            if polled? {
                self.recovered();
                return Ok(start.elapsed() > AT_ONCE);
            }
            if left.is_zero() {
                // An application's work on its own device may take any time.
                self.hung.store(!self.shared, Ordering::Relaxed);
                let limit = self.patience.as_secs_f32();
                return Err(Error::Gpu(format!("no answer for over {limit} s; it may hang")));
            }
        }
    }

    /// Clears the hung state if all submitted work is done.
    fn recovered(&self) {
        let all = wgpu::PollType::Wait { submission_index: None, timeout: Some(Duration::ZERO) };
        if self.hung.load(Ordering::Relaxed) && matches!(self.poll(all), Ok(true)) {
            self.hung.store(false, Ordering::Relaxed);
        }
    }

    /// Polls the device; returns true if the requested work is done.
    fn poll(&self, what: wgpu::PollType) -> Result<bool, Error> {
        // wgpu panics if the driver reports a lost device during a wait.
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(what)));
        match polled {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(wgpu::PollError::Timeout)) => Ok(false),
            Ok(Err(error)) => Err(Error::Gpu(error.to_string())),
            Err(_) => {
                let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                let what = "device lost while it was waited for".to_owned();
                Err(Error::Gpu(lost.get_or_insert(what).clone()))
            }
        }
    }
}

impl Progress {
    /// Called before the last handle of a device is dropped.  A hung device is closed on a separate
    /// thread when it is done, or never, as wgpu would wait for it forever.
    pub(super) fn close(&self, queue: &wgpu::Queue) {
        if !self.hung.load(Ordering::Relaxed) || self.lost().is_some() {
            return;
        }
        tracing::warn!("a device does not answer; it is left to itself");
        let progress = self.clone();
        let held = queue.clone();
        let wait = move || {
            let look = || wgpu::PollType::Wait { submission_index: None, timeout: Some(LOOK) };
            while matches!(progress.poll(look()), Ok(false)) && progress.lost().is_none() {}
            drop(held);
        };
        if thread::Builder::new().name("jinabert-closing".to_owned()).spawn(wait).is_err() {
            std::mem::forget(queue.clone()); // open until the end of the process
        }
    }
}
