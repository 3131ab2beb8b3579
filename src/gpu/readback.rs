//! Results on their way back.

use super::{
    adapter::Gpu,
    pace::Pace,
    progress::Progress,
    slot::{READBACK, buffer, decode},
};
use crate::{error::Error, recording::Tensor};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Instant,
};

/// Buffers that results were read from, for the next ones.
#[derive(Clone, Default)]
pub(super) struct Readbacks(Arc<Mutex<Vec<wgpu::Buffer>>>);

impl Readbacks {
    /// A buffer of at least this size, which nobody else has.
    pub(super) fn take(&self, device: &wgpu::Device, size: u64) -> wgpu::Buffer {
        let mut idle = self.idle();
        if let Some(n) = idle.iter().position(|buffer| buffer.size() >= size) {
            return idle.swap_remove(n);
        }
        idle.pop(); // the new one takes its place
        buffer(device, "readback", size.next_power_of_two().max(4096), READBACK)
    }

    /// Bytes of those that wait for a result.
    pub(super) fn bytes(&self) -> u64 {
        self.idle().iter().map(wgpu::Buffer::size).sum()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<wgpu::Buffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of a buffer that a submission writes.
pub(super) struct Mapping {
    buffer: wgpu::Buffer,
    size: u64,
    submission: wgpu::SubmissionIndex,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Mapping {
    /// Asks for it, once the submission is on its way.
    pub(super) fn new(buffer: wgpu::Buffer, size: u64, submission: wgpu::SubmissionIndex) -> Self {
        let (sender, mapped) = mpsc::channel();
        buffer.slice(..size).map_async(wgpu::MapMode::Read, move |result| {
            let _ = sender.send(result); // the receiver is gone only if nobody wants it any more
        });
        Self { buffer, size, submission, mapped }
    }

    /// Waits, and hands the bytes to `read`; also returns the buffer, free for another.
    pub(super) fn read<R>(
        self,
        progress: &Progress,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<(R, wgpu::Buffer), Error> {
        progress.wait(&self.submission)?;
        let mapped = self.mapped.recv();
        let mapped = mapped.map_err(|_| Error::Gpu("readback was dropped".to_owned()))?;
        mapped.map_err(|error| Error::Gpu(format!("readback: {error}")))?;
        let view = self.buffer.slice(..self.size).get_mapped_range();
        let view = view.map_err(|error| Error::Gpu(error.to_string()))?;
        let result = read(&view);
        drop(view);
        self.buffer.unmap();
        Ok((result, self.buffer))
    }
}

/// A run whose result is not there yet.  Dropped, the device finishes it all the same.
pub(super) struct Pending {
    pub(super) mapping: Mapping,
    /// What the bytes are, ahead of the number of the run.
    pub(super) output: Tensor,
    /// The number that must stand behind them.
    pub(super) number: u32,
    /// The operations, and when they were handed over.
    pub(super) work: (f64, Instant),
    pub(super) pace: Arc<Mutex<Pace>>,
    pub(super) progress: Progress,
    pub(super) home: Readbacks,
}

impl Pending {
    /// Waits for the elements of the output.
    pub(super) fn finish(self) -> Result<Vec<f32>, Error> {
        let (result, buffer) = self.mapping.read(&self.progress, |raw| {
            let (raw, number) = raw.split_at(raw.len() - size_of::<u32>());
            let whole = number == bytemuck::bytes_of(&self.number);
            whole.then(|| decode(&self.output, raw))
        })?;
        self.home.idle().push(buffer);
        let (flops, start) = self.work;
        let stopped = "part of the work was not carried out; the system may have stopped it";
        let values = result.ok_or_else(|| Error::Gpu(stopped.to_owned()))?;
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).learn(flops, start.elapsed());
        Ok(values)
    }
}

/// Waits for bytes that nobody else will ask for.
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
