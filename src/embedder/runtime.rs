//! The model on its device: batches, memory, speed.

use super::{Embedder, Error, Output, choose, job::SequenceInput};
use crate::{model::Architecture, recording::InFlight, tune::Speed};

/// The model on its device, from [`Embedder::runtime`]: state, measurements, and single batches for
/// callers with a scheduler of their own.
#[derive(Clone, Copy, Debug)]
pub struct Runtime<'a>(&'a Embedder);

impl Embedder {
    /// The model on its device: memory, speed, size of batches.
    pub fn runtime(&self) -> Runtime<'_> {
        Runtime(self)
    }
}

impl<'a> Runtime<'a> {
    /// `cpu` or `gpu`.
    pub fn kind(self) -> &'static str {
        if self.0.runner.device_info().cpu { "cpu" } else { "gpu" }
    }

    /// Architecture of the model.
    pub fn architecture(self) -> &'static Architecture {
        self.0.architecture
    }

    /// Bytes allocated on the device now: weights, activations of the largest batch so far,
    /// readback.
    pub fn allocated_bytes(self) -> u64 {
        self.0.runner.allocated_bytes()
    }

    /// Speed of the model on its current device, measured now in up to a quarter of a second on all
    /// but the slowest devices; the criterion of [`Device::Auto`](crate::Device::Auto).
    ///
    /// # Errors
    /// [`Error::Gpu`] or a related error if the device fails.
    pub fn speed(self) -> Result<Speed, Error> {
        self.0.runner.attempt(choose::speed)
    }

    /// Tokens per batch; a single longer sequence gets a batch of its own.
    pub fn batch_tokens(self) -> usize {
        self.0.runner.batch_tokens.get()
    }

    /// Pipeline depth: batches to keep in flight.  The device is then never idle, and new calls
    /// wait no longer than necessary.
    pub(crate) fn ahead(self) -> usize {
        self.0.runner.ahead()
    }

    /// True if nothing is being submitted or waited for: a new call would hardly wait.
    pub fn is_idle(self) -> bool {
        self.0.runner.is_idle()
    }

    /// Submits one batch; waiting yields the rows of each sequence.  The sequences are those of an
    /// [`EncodeJob`](crate::EncodeJob).
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails and all
    /// retries fail; most of them when waiting.
    pub fn submit(
        self,
        sequences: &[&SequenceInput],
        output: Output,
    ) -> Result<InFlight<'a, Vec<Vec<f32>>>, Error> {
        self.0.runner.submit(sequences, output)
    }
}
