//! Readback of results.

use super::{
    adapter::Gpu,
    budget::{SubmissionBudget, Work},
    progress::Progress,
    slot::{READBACK, buffer, decode},
};
use crate::{error::Error, recording::Tensor};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Instant,
};

/// Pool of readback buffers.
#[derive(Clone, Default)]
pub(super) struct Readbacks(Arc<Mutex<Vec<wgpu::Buffer>>>);

impl Readbacks {
    /// Takes a buffer of at least this size for exclusive use.
    pub(super) fn take(&self, device: &wgpu::Device, size: u64) -> wgpu::Buffer {
        let mut idle = self.idle();
        if let Some(n) = idle.iter().position(|buffer| buffer.size() >= size) {
            return idle.swap_remove(n);
        }
        idle.pop(); // replaced by the new one
        buffer(device, "readback", size.next_power_of_two().max(4096), READBACK)
    }

    /// Bytes of the idle buffers.
    pub(super) fn bytes(&self) -> u64 {
        self.idle().iter().map(wgpu::Buffer::size).sum()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<wgpu::Buffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mapping of the beginning of a buffer that a submission writes.
pub(super) struct Mapping {
    buffer: wgpu::Buffer,
    size: u64,
    submission: wgpu::SubmissionIndex,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Mapping {
    /// Requests the mapping after the submission.
    pub(super) fn new(buffer: wgpu::Buffer, size: u64, submission: wgpu::SubmissionIndex) -> Self {
        let (sender, mapped) = mpsc::channel();
        buffer.slice(..size).map_async(wgpu::MapMode::Read, move |result| {
            let _ = sender.send(result); // the receiver is gone only if the result is not needed
        });
        Self { buffer, size, submission, mapped }
    }

    /// Waits and passes the bytes to `read`; also returns the buffer for reuse, and true if the
    /// submission was not yet finished.
    pub(super) fn read<R>(
        self,
        progress: &Progress,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<(R, wgpu::Buffer, bool), Error> {
        let waited = progress.wait(&self.submission)?;
        self.mapped
            .recv()
            .map_err(|_| Error::Gpu("readback was dropped".to_owned()))?
            .map_err(|error| Error::Gpu(format!("readback: {error}")))?;
        let view = self
            .buffer
            .slice(..self.size)
            .get_mapped_range()
            .map_err(|error| Error::Gpu(error.to_string()))?;
        let result = read(&view);
        drop(view);
        self.buffer.unmap();
        Ok((result, self.buffer, waited))
    }
}

/// A run in flight.  If it is dropped, the device still finishes it.
pub(super) struct Readback {
    pub(super) mapping: Mapping,
    /// Tensor in the bytes, before the number of the run.
    pub(super) output: Tensor,
    /// Expected number of the run after it.
    pub(super) number: u32,
    /// Operations not yet waited for, and their submission time.
    pub(super) work: (Work, Instant),
    pub(super) budget: Arc<Mutex<SubmissionBudget>>,
    pub(super) progress: Progress,
    pub(super) home: Readbacks,
}

impl Readback {
    /// Waits for the elements of the output.
    pub(super) fn finish(self) -> Result<Vec<f32>, Error> {
        let (result, buffer, waited) = self.mapping.read(&self.progress, |raw| {
            let (raw, number) = raw.split_at(raw.len() - size_of::<u32>());
            let whole = number == bytemuck::bytes_of(&self.number);
            whole.then(|| decode(&self.output, raw))
        })?;
        self.home.idle().push(buffer);
        let (work, start) = self.work;
        let stopped = "part of the work was not carried out; the system may have stopped it";
        let values = result.ok_or_else(|| Error::Gpu(stopped.to_owned()))?;
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.observe(work, start, waited);
        Ok(values)
    }
}

/// Waits for bytes, in a buffer that is used once.
pub(super) fn read<R>(
    gpu: &Gpu,
    buffer: &wgpu::Buffer,
    encoder: wgpu::CommandEncoder,
    read: impl FnOnce(&[u8]) -> R,
) -> Result<R, Error> {
    let submission = gpu.queue.submit([encoder.finish()]);
    let mapping = Mapping::new(buffer.clone(), buffer.size(), submission);
    Ok(mapping.read(&gpu.progress, read)?.0)
}
