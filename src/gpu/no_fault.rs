//! Stand-in for fault injection without the feature `faults`: no run has a fault.

use crate::recording::Faults;

/// Fault of a run: none.
pub(super) struct RunFault;

impl RunFault {
    pub(super) fn next(_faults: &Faults) -> Self {
        Self
    }

    /// True if submission `n` is to be skipped.
    pub(super) fn skips(&self, _n: usize) -> bool {
        false
    }

    /// Adds to the run's last submission, before the result is copied out.
    pub(super) fn before_copy(
        &self,
        _device: &wgpu::Device,
        _queue: &wgpu::Queue,
        _encoder: &mut wgpu::CommandEncoder,
    ) {
    }

    /// Adds to the run's last submission, after the result is copied out.
    pub(super) fn after_copy(
        &self,
        _device: &wgpu::Device,
        _queue: &wgpu::Queue,
        _encoder: &mut wgpu::CommandEncoder,
        _readback: &wgpu::Buffer,
    ) {
    }

    /// Acts once the run is submitted.
    pub(super) fn after_submission(&self, _device: &wgpu::Device) {}
}
