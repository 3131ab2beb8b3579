//! Implementation of the injected faults.

use super::slot::buffer;
use crate::recording::{Fault, Faults};
use std::time::{Duration, Instant};

/// Fault of a run, if it has one.
pub(super) struct RunFault(Option<Fault>);

impl RunFault {
    /// Counts a run, and takes its fault.
    pub(super) fn next(faults: &Faults) -> Self {
        Self(faults.next())
    }

    /// True if submission `n` is to be skipped.
    pub(super) fn skips(&self, n: usize) -> bool {
        n == 0 && self.0 == Some(Fault::Stale)
    }

    /// Adds to the run's last submission, before the result is copied out.
    pub(super) fn before_copy(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        if let Some(Fault::Hang(time)) = self.0 {
            spin(device, queue, encoder, time);
        }
    }

    /// Adds to the run's last submission, after the result is copied out.
    pub(super) fn after_copy(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        encoder: &mut wgpu::CommandEncoder,
        readback: &wgpu::Buffer,
    ) {
        if self.0 == Some(Fault::NotFinite) {
            spoil(device, queue, encoder, readback);
        }
    }

    /// Acts once the run is submitted.
    pub(super) fn after_submission(&self, device: &wgpu::Device) {
        if self.0 == Some(Fault::Lost) {
            device.destroy();
        }
    }
}

/// Random numbers (xorshift; Marsaglia 2003): no compiler can skip the preceding ones.  Mesa's
/// software driver ends loops after 65,535 iterations, so each iteration does more work.
const SPIN: &str = "
@group(0) @binding(0) var<storage, read_write> cell: array<u32>;
fn next(x: u32) -> u32 {
    let y = x ^ (x << 13u);
    let z = y ^ (y >> 17u);
    return z ^ (z << 5u);
}
@compute @workgroup_size(1) fn spin() {
    var x = cell[0] | 1u;
    for (var i = 0u; i < 60000u; i++) {
        x = next(next(next(next(x))));
        x = next(next(next(next(x))));
    }
    cell[0] = x;
}";

/// Dispatches for measuring the device's speed.
const FEW: usize = 8;

/// Makes a submission take about `time`: one thread, and each dispatch waits for the one before it,
/// so that neither a large device nor a busy processor ends it early.  It is not a submission of
/// its own, as Mesa's software driver accepts no second one while another runs.
fn spin(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    encoder: &mut wgpu::CommandEncoder,
    time: Duration,
) {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("spin"),
        source: wgpu::ShaderSource::Wgsl(SPIN.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("spin"),
        layout: None,
        module: &module,
        entry_point: Some("spin"),
        compilation_options: Default::default(),
        cache: None,
    });
    let cell = buffer(device, "spin", 4, wgpu::BufferUsages::STORAGE);
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("spin"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: cell.as_entire_binding() }],
    });
    let spin = |encoder: &mut wgpu::CommandEncoder, dispatches: usize| {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        (0..dispatches).for_each(|_| pass.dispatch_workgroups(1, 1, 1));
    };
    let timed = || {
        let mut encoder = device.create_command_encoder(&Default::default());
        spin(&mut encoder, FEW);
        let start = Instant::now();
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely()).is_ok().then(|| start.elapsed())
    };
    // The first run compiles; the minimum of several runs excludes delays by other load.
    let few = (0..4).filter_map(|_| timed()).min().unwrap_or(time);
    spin(encoder, (FEW as f64 * time.as_secs_f64() / few.as_secs_f64()) as usize);
}

/// Writes a NaN to the start of the result.
fn spoil(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    encoder: &mut wgpu::CommandEncoder,
    readback: &wgpu::Buffer,
) {
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let odd = buffer(device, "odd", 4, usage);
    queue.write_buffer(&odd, 0, &f32::NAN.to_le_bytes());
    encoder.copy_buffer_to_buffer(&odd, 0, readback, 0, 4);
}
