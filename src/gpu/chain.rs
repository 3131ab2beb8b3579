//! Check that every submission of a run was executed.
//!
//! On Metal, wgpu does not report a command buffer that the system stops: it counts as finished,
//! and the readback has an older run's result.  So each run's number is copied from submission to
//! submission, through one cell each, and read back after the result.  A skipped submission leaves
//! an older number in its cell.

use super::slot::buffer;

const CELL: u64 = 4;
const CELLS: wgpu::BufferUsages = wgpu::BufferUsages::COPY_SRC.union(wgpu::BufferUsages::COPY_DST);

/// Cells, even ones in one buffer and odd ones in the other: no copy has one buffer for both ends.
pub(super) struct SubmissionNonce {
    cells: [wgpu::Buffer; 2],
    number: u32,
}

impl SubmissionNonce {
    /// Creates the cells for short runs.
    pub(super) fn new(device: &wgpu::Device) -> Self {
        Self { cells: cells(device, 16), number: 0 }
    }

    /// Creates new cells and continues the numbers.
    pub(super) fn renewed(&self, device: &wgpu::Device) -> Self {
        Self { number: self.number, ..Self::new(device) }
    }

    /// Begins a run of some submissions; returns its number.
    pub(super) fn begin(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        submissions: usize,
    ) -> u32 {
        let pairs = submissions as u64 / 2 + 1;
        if self.cells[0].size() < CELL * pairs {
            self.cells = cells(device, pairs.next_power_of_two());
        }
        self.number = self.number.wrapping_add(1);
        queue.write_buffer(&self.cells[0], 0, bytemuck::bytes_of(&self.number));
        self.number
    }

    /// Ends submission `n` of the run.
    pub(super) fn link(&self, encoder: &mut wgpu::CommandEncoder, n: usize) {
        let (from, at) = self.cell(n);
        let (to, next) = self.cell(n + 1);
        encoder.copy_buffer_to_buffer(from, at, to, next, CELL);
    }

    /// Copies the number after `n` submissions.
    pub(super) fn copy_out(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        n: usize,
        to: &wgpu::Buffer,
        offset: u64,
    ) {
        let (from, at) = self.cell(n);
        encoder.copy_buffer_to_buffer(from, at, to, offset, CELL);
    }

    fn cell(&self, n: usize) -> (&wgpu::Buffer, u64) {
        (&self.cells[n % 2], CELL * (n as u64 / 2))
    }
}

fn cells(device: &wgpu::Device, pairs: u64) -> [wgpu::Buffer; 2] {
    [(); 2].map(|()| buffer(device, "chain", CELL * pairs, CELLS))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{adapter, readback, slot::READBACK},
        *,
    };

    /// The number of a run of five submissions, and the number read back.
    fn run(gpu: &adapter::Gpu, chain: &mut SubmissionNonce, left_out: Option<usize>) -> (u32, u32) {
        let number = chain.begin(&gpu.device, &gpu.queue, 5);
        for n in (0..5).filter(|n| Some(*n) != left_out) {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            chain.link(&mut encoder, n);
            gpu.queue.submit([encoder.finish()]);
        }
        let to = buffer(&gpu.device, "end", CELL, READBACK);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        chain.copy_out(&mut encoder, 5, &to, 0);
        let found = readback::read(gpu, &to, encoder, bytemuck::pod_read_unaligned);
        (number, found.expect("a working device"))
    }

    #[test]
    fn missing_submissions_are_noticed() {
        for index in 0..adapter::native_adapters().len() {
            let gpu = adapter::open(index).expect("listed");
            let mut chain = SubmissionNonce::new(&gpu.device);
            for left_out in [Some(0), None, Some(0), Some(1), None, Some(3), Some(4), None] {
                let (number, found) = run(&gpu, &mut chain, left_out);
                assert_eq!(number == found, left_out.is_none(), "without {left_out:?}: {found}");
            }
        }
    }
}
