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

/// What a device is given to answer, unless the caller knows better.  A submission takes a tenth of
/// a second by prediction; software drivers on busy machines take a hundred times that.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long one look at a device takes, so that one that is lost ends the wait.
const LOOK: Duration = Duration::from_secs(1);

/// The same of an application's device: while it is looked at, wgpu lets nobody present a frame.
const GLANCE: Duration = Duration::from_millis(1);

/// How far a device is, for any thread to wait on.
#[derive(Clone)]
pub(super) struct Progress {
    device: wgpu::Device,
    lost: Arc<Mutex<Option<String>>>,
    hung: Arc<AtomicBool>,
    patience: Duration,
    shared: bool,
}

impl Progress {
    /// Of a device that was just opened.
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let progress = Self { shared: false, ..Self::shared(device) };
        let keep = Arc::clone(&progress.lost);
        device.set_device_lost_callback(move |reason, message| {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("device lost ({reason:?}) {message}"));
        });
        progress
    }

    /// Of a device whose callbacks are an application's: that it is lost shows in what fails.
    pub(super) fn shared(device: &wgpu::Device) -> Self {
        Self {
            device: device.clone(),
            lost: Arc::default(),
            hung: Arc::default(),
            patience: PATIENCE,
            shared: true,
        }
    }

    /// Sets how long a wait may take.
    pub(super) fn limit(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Why it is of no use any more, if that is known.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a submission and all before it.
    pub(super) fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let left = match self.hung.load(Ordering::Relaxed) {
                true => Duration::ZERO,
                false => self.patience.saturating_sub(start.elapsed()),
            };
            let look = if self.shared { GLANCE } else { LOOK };
            let polled = self.poll(wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(left.min(look)),
            });
            if let Some(reason) = self.lost() {
                return Err(Error::Gpu(reason));
            }
            match polled? {
                true => {
                    self.recovered();
                    return Ok(());
                }
                false if left.is_zero() => {
                    // What an application does with its own device may take as long as it likes.
                    self.hung.store(!self.shared, Ordering::Relaxed);
                    let limit = self.patience.as_secs_f32();
                    return Err(Error::Gpu(format!("no answer for over {limit} s; it may hang")));
                }
                false => {}
            }
        }
    }

    /// One that hung does so no more when all is done that it was given.
    fn recovered(&self) {
        let all = wgpu::PollType::Wait { submission_index: None, timeout: Some(Duration::ZERO) };
        if self.hung.load(Ordering::Relaxed) && matches!(self.poll(all), Ok(true)) {
            self.hung.store(false, Ordering::Relaxed);
        }
    }

    /// Whether all is done that was to be waited for.
    fn poll(&self, what: wgpu::PollType) -> Result<bool, Error> {
        // wgpu panics where a driver says, while it is waited for, that the device is lost.
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
    /// Before the last handle of a device is dropped: one that hangs is closed on a thread of its
    /// own, when it is done or never, for wgpu waits for it without end.
    pub(super) fn close(&self, queue: &wgpu::Queue) {
        if !self.hung.load(Ordering::Relaxed) || self.lost().is_some() {
            return;
        }
        tracing::warn!("a device does not answer; it is left to itself");
        let (progress, held) = (self.clone(), queue.clone());
        let wait = move || {
            let look = || wgpu::PollType::Wait { submission_index: None, timeout: Some(LOOK) };
            while matches!(progress.poll(look()), Ok(false)) && progress.lost().is_none() {}
            drop(held);
        };
        if thread::Builder::new().name("jinabert-closing".to_owned()).spawn(wait).is_err() {
            std::mem::forget(queue.clone()); // open to the end of the process
        }
    }
}
