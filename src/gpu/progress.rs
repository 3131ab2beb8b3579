//! Waiting for a device.

use crate::error::Error;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a device is given to answer, unless the caller knows better.  A submission takes a tenth of
/// a second by prediction; software drivers on busy machines take a hundred times that.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far a device is, for any thread to wait on.
#[derive(Clone)]
pub(super) struct Progress {
    device: wgpu::Device,
    lost: Arc<Mutex<Option<String>>>,
    patience: Duration,
}

impl Progress {
    /// Of a device that was just opened.
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let progress = Self::shared(device);
        let keep = Arc::clone(&progress.lost);
        device.set_device_lost_callback(move |reason, message| {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("device lost ({reason:?}) {message}"));
        });
        progress
    }

    /// Of a device whose callbacks are an application's: that it is lost shows in what fails.
    pub(super) fn shared(device: &wgpu::Device) -> Self {
        Self { device: device.clone(), lost: Arc::default(), patience: PATIENCE }
    }

    /// Sets how long a wait may take.
    pub(super) fn limit(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Waits for a submission and all before it.
    pub(super) fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<(), Error> {
        let start = Instant::now();
        // Waiting in slices lets a lost device end the wait.
        loop {
            let left = self.patience.saturating_sub(start.elapsed());
            let polled = self.device.poll(wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(left.min(Duration::from_secs(1))),
            });
            if let Some(reason) = &*self.lost.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(Error::Gpu(reason.clone()));
            }
            match polled {
                Ok(_) => return Ok(()),
                Err(wgpu::PollError::Timeout) if left.is_zero() => {
                    let waited = self.patience.as_secs_f32();
                    return Err(Error::Gpu(format!("no answer within {waited} s; it may hang")));
                }
                Err(wgpu::PollError::Timeout) => {}
                Err(error) => return Err(Error::Gpu(error.to_string())),
            }
        }
    }
}
