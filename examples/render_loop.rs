//! An application that draws with wgpu and embeds texts on the same device.
//!
//!     cargo run --release --example render_loop [MODEL]
//!
//! It draws into a texture, without a window, and prints the duration of frames with and without
//! embedding at the same time.

use jinabert::{
    Embedder, Options, Queue,
    gpu::{Gpu, wgpu},
};
use std::{
    error::Error,
    time::{Duration, Instant},
};

const TRIANGLE: &str = "
struct Frame { turn: f32 }
@group(0) @binding(0) var<uniform> frame: Frame;
@vertex fn corner(@builtin(vertex_index) n: u32) -> @builtin(position) vec4f {
    let angle = frame.turn + f32(n) * 2.0943951;
    return vec4f(0.8 * cos(angle), 0.8 * sin(angle), 0.0, 1.0);
}
@fragment fn colour() -> @location(0) vec4f { return vec4f(1.0, 0.6, 0.2, 1.0); }
";

/// State of the application, independent of embedding.
struct Scene {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::RenderPipeline,
    turn: wgpu::Buffer,
    group: wgpu::BindGroup,
    target: wgpu::TextureView,
}

impl Scene {
    fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let format = wgpu::TextureFormat::Rgba8Unorm;
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("triangle"),
            source: wgpu::ShaderSource::Wgsl(TRIANGLE.into()),
        });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("triangle"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("corner"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("colour"),
                compilation_options: Default::default(),
                targets: &[Some(format.into())],
            }),
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            multiview_mask: None,
            cache: None,
        });
        let turn = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("turn"),
            size: 4,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("frame"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: turn.as_entire_binding() }],
        });
        let texture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("target"),
            size: wgpu::Extent3d { width: 320, height: 240, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
            view_formats: &[],
        });
        let target = texture.create_view(&Default::default());
        Self { device, queue, pipeline, turn, group, target }
    }

    /// Draws a frame and waits for it, as presentation would.
    fn draw(&self, turn: f32) -> Result<Duration, wgpu::PollError> {
        let start = Instant::now();
        self.queue.write_buffer(&self.turn, 0, &turn.to_le_bytes());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("frame"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &self.target,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations::default(),
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.draw(0..3, 0..1);
        drop(pass);
        let frame = self.queue.submit([encoder.finish()]);
        let timeout = Some(Duration::from_secs(60));
        self.device.poll(wgpu::PollType::Wait { submission_index: Some(frame), timeout })?;
        Ok(start.elapsed())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "models/jinabert-mini-en".to_owned());
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let request = adapter.request_device(&wgpu::DeviceDescriptor::default());
    let (device, queue) = pollster::block_on(request)?;
    println!("one device for both: {}", adapter.get_info().name);

    let gpu = Gpu::shared(&adapter, &device, &queue)?;
    let scene = Scene::new(device, queue);
    let frames = |n: usize| -> Result<Vec<Duration>, wgpu::PollError> {
        (0..n).map(|n| scene.draw(n as f32 / 60.0)).collect()
    };
    let idle = frames(60)?;

    let max_submission_time = Duration::from_millis(4);
    let options = Options { gpu: Some(gpu), max_submission_time, ..Options::default() };
    let embedder = Embedder::open_with(model, options)?;
    let queue = Queue::new(embedder)?;
    let texts: Vec<String> = (0..200).map(|n| format!("What the {n}th note says")).collect();
    let pending = queue.embed(&texts)?;
    let mut busy = Vec::new();
    let mut waiting = Err(pending);
    while let Err(pending) = waiting {
        busy.push(scene.draw(busy.len() as f32 / 60.0)?);
        waiting = pending.wait_for(Duration::ZERO);
    }
    let vectors = waiting.expect("the loop has ended")?;

    let slowest = |frames: &[Duration]| frames.iter().max().copied().unwrap_or_default();
    let embedder = queue.embedder();
    let dim = embedder.dim();
    println!("{} vectors of {dim} components on {}", vectors.len(), embedder.device());
    println!("slowest of {} frames before: {:.1?}", idle.len(), slowest(&idle));
    println!("slowest of {} frames meanwhile: {:.1?}", busy.len(), slowest(&busy));
    Ok(())
}
