//! How a device is made to fail.

use super::slot::buffer;
use std::time::{Duration, Instant};

/// Random numbers (xorshift; Marsaglia 2003), of which no compiler knows a later one without those
/// before it.  Mesa's software driver ends a shader's loops after 65,535 steps.
const SPIN: &str = "
@group(0) @binding(0) var<storage, read_write> cell: array<u32>;
@compute @workgroup_size(1) fn spin() {
    var x = cell[0] | 1u;
    for (var i = 0u; i < 60000u; i++) {
        x ^= x << 13u;
        x ^= x >> 17u;
        x ^= x << 5u;
    }
    cell[0] = x;
}";

/// Workgroups that tell how fast a device is.
const FEW: u32 = 64;

/// Keeps a device busy for about so long.
pub(super) fn spin(device: &wgpu::Device, queue: &wgpu::Queue, time: Duration) {
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
    let run = |groups: u32| {
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(FEW, groups / FEW, 1);
        drop(pass);
        queue.submit([encoder.finish()]);
    };
    let finished = || device.poll(wgpu::PollType::wait_indefinitely()).is_ok();
    run(FEW); // compiles it
    let ready = finished();
    let start = Instant::now();
    run(FEW);
    let few = if ready && finished() { start.elapsed() } else { time };
    run((f64::from(FEW) * time.as_secs_f64() / few.as_secs_f64()) as u32);
}

/// Ahead of what is read back, a number that is none.
pub(super) fn spoil(
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
