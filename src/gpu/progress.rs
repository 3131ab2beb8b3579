//! Waiting for a device.

use crate::error::Error;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How far a device is, for any thread to wait on.
#[derive(Clone)]
pub(super) struct Progress {
    device: wgpu::Device,
    lost: Arc<Mutex<Option<String>>>,
}

impl Progress {
    /// Of a device that was just opened.
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let lost = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, message| {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(format!("device lost ({reason:?}) {message}"));
        });
        Self { device: device.clone(), lost }
    }

    /// Waits for a submission and all before it.
    pub(super) fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<(), Error> {
        // Waiting in slices lets a lost device end the wait.
        loop {
            let polled = self.device.poll(wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(Duration::from_secs(1)),
            });
            if let Some(reason) = &*self.lost.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(Error::Gpu(reason.clone()));
            }
            match polled {
                Ok(_) => return Ok(()),
                Err(wgpu::PollError::Timeout) => {}
                Err(error) => return Err(Error::Gpu(error.to_string())),
            }
        }
    }
}
