//! Runs a recording: buffers, bind groups, one pass, one submission, one readback.

use super::{
    adapter::{AdapterSummary, Gpu},
    pipeline::params_size,
    pipeline_cache::PipelineCache,
    pipelines::{Pipelines, address},
    profile::{Span, Timestamps},
    scope::scoped,
    slot::{READBACK, Slot, UNIFORM, buffer, offset},
};
use crate::{
    error::Error,
    recording::{Caps, Command, Format, Program, Recording, Shape, Tensor},
};
use std::{collections::HashMap, sync::Arc, sync::mpsc, time::Duration};

/// Runs recordings on a [`Gpu`].
pub struct Engine {
    gpu: Gpu,
    slots: Vec<Slot>,
    pipelines: Pipelines,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    params: wgpu::Buffer,
    readback: wgpu::Buffer,
}

/// A bind group is settled by its program (the address of its `Arc`, which `pipelines` keeps alive)
/// and by the buffer and offset of each binding.
type GroupKey = (usize, Vec<(u32, u32)>);

impl Engine {
    /// An engine without buffers.
    pub fn new(gpu: Gpu) -> Self {
        Self::with(gpu, None)
    }

    /// As [`Engine::new`]; what it compiles is kept on disk for the next process, where the driver
    /// allows that.  `JINABERT_CACHE` names the directory.
    pub fn cached(gpu: Gpu) -> Self {
        let cache = PipelineCache::open(&gpu);
        Self::with(gpu, cache)
    }

    fn with(gpu: Gpu, cache: Option<PipelineCache>) -> Self {
        Self {
            params: buffer(&gpu.device, "params", 256 * 128, UNIFORM),
            readback: buffer(&gpu.device, "readback", 4096, READBACK),
            pipelines: Pipelines::new(&gpu, cache),
            gpu,
            slots: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// What it runs on.
    pub fn summary(&self) -> &AdapterSummary {
        &self.gpu.summary
    }

    /// The device without this engine's buffers and pipelines, for another engine.
    pub fn into_gpu(self) -> Gpu {
        self.gpu
    }

    /// Runs the dispatches one pass each and says how long each took on the device.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if the device cannot time passes; [`Error::Gpu`] if it fails.
    pub fn profile(&mut self, recording: &Recording) -> Result<Vec<Span>, Error> {
        if !self.gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(Error::NoGpu { needs: format!("{} has no timestamps", self.gpu.summary) });
        }
        let mut spans = Vec::new();
        for commands in recording.commands.chunks(1024) {
            let part = Recording { commands: commands.to_vec() };
            let timestamps = Timestamps::new(&self.gpu.device, commands.len());
            let ticks = self.checked(|this| {
                let offsets = this.arrange(&part)?;
                let mut encoder = this.gpu.device.create_command_encoder(&Default::default());
                for (n, (command, offset)) in commands.iter().zip(offsets).enumerate() {
                    let timestamp_writes = Some(timestamps.writes(n));
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: None,
                        timestamp_writes,
                    });
                    this.encode(&mut pass, command, offset);
                }
                timestamps.resolve(&mut encoder);
                let size = 16 * commands.len() as u64;
                this.submit(encoder, &timestamps.readback, size, pod::<u64>)
            })?;
            let period = f64::from(self.gpu.queue.get_timestamp_period());
            spans.extend(commands.iter().zip(ticks.chunks_exact(2)).map(|(command, ticks)| {
                let nanoseconds = ticks[1].wrapping_sub(ticks[0]) as f64 * period;
                Span { word: command.program.word, time: Duration::from_nanos(nanoseconds as u64) }
            }));
        }
        Ok(spans)
    }

    /// Compiles what is new, makes bind groups, and uploads all `params`; returns the offset of
    /// each.
    fn arrange(&mut self, recording: &Recording) -> Result<Vec<u32>, Error> {
        let align = self.gpu.device.limits().min_uniform_buffer_offset_alignment as usize;
        let mut bytes = Vec::new();
        let mut offsets = Vec::with_capacity(recording.commands.len());
        for command in &recording.commands {
            bytes.resize(bytes.len().next_multiple_of(align), 0);
            offsets.push(bytes.len() as u32);
            bytes.extend_from_slice(&command.params);
        }
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        if bytes.len() as u64 > self.params.size() {
            let size = (bytes.len() as u64).next_power_of_two();
            self.params = buffer(&self.gpu.device, "params", size, UNIFORM);
            self.groups.clear();
        }
        self.gpu.queue.write_buffer(&self.params, 0, &bytes);

        self.pipelines.complete(recording)?;
        for command in &recording.commands {
            let key = group_key(command);
            if !self.groups.contains_key(&key) {
                let group = self.bind(command);
                self.groups.insert(key, group);
            }
        }
        Ok(offsets)
    }

    /// Binds each buffer from the tensor's offset as far as it goes, so that one group serves every
    /// length; a texture whole.
    fn bind(&self, command: &Command) -> wgpu::BindGroup {
        let params = wgpu::BufferBinding {
            buffer: &self.params,
            offset: 0,
            size: wgpu::BufferSize::new(params_size(&command.program)),
        };
        let mut entries = vec![wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(params),
        }];
        let most = self.gpu.caps.max_binding_bytes & !3;
        for (n, tensor) in command.bindings.iter().enumerate() {
            let slot = &self.slots[tensor.slot as usize];
            let resource = slot.resource(offset(tensor), most);
            entries.push(wgpu::BindGroupEntry { binding: n as u32 + 1, resource });
        }
        let pipeline = self.pipelines.get(&command.program);
        self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(command.program.word),
            layout: &pipeline.layout,
            entries: &entries,
        })
    }

    fn encode(&self, pass: &mut wgpu::ComputePass, command: &Command, params: u32) {
        let pipeline = self.pipelines.get(&command.program);
        let [x, y, z] = command.grid;
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &self.groups[&group_key(command)], &[params]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// Submits, waits, and hands the first `size` bytes of `readback` to `read`.
    fn submit<R>(
        &self,
        encoder: wgpu::CommandEncoder,
        readback: &wgpu::Buffer,
        size: u64,
        read: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Error> {
        let (sender, receiver) = mpsc::channel();
        self.gpu.queue.submit([encoder.finish()]);
        let slice = readback.slice(..size);
        slice.map_async(wgpu::MapMode::Read, move |result| {
            let _ = sender.send(result); // the receiver is gone only if this call already failed
        });
        // Waiting in slices lets a lost device end the wait.
        loop {
            let wait = wgpu::PollType::Wait {
                submission_index: None,
                timeout: Some(Duration::from_secs(1)),
            };
            let polled = self.gpu.device.poll(wait);
            if let Some(reason) = self.gpu.lost() {
                return Err(Error::Gpu(reason));
            }
            match polled {
                Ok(_) => break,
                Err(wgpu::PollError::Timeout) => {}
                Err(error) => return Err(Error::Gpu(error.to_string())),
            }
        }
        let mapped = receiver.recv().map_err(|_| Error::Gpu("readback was dropped".to_owned()))?;
        mapped.map_err(|error| Error::Gpu(format!("readback: {error}")))?;
        let view = slice.get_mapped_range().map_err(|error| Error::Gpu(error.to_string()))?;
        let result = read(&view);
        drop(view);
        readback.unmap();
        Ok(result)
    }

    /// Turns whatever wgpu reports while `work` runs into an error.
    fn checked<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, Error>) -> Result<R, Error> {
        let device = self.gpu.device.clone();
        match scoped(&device, || work(self)) {
            (_, Some(error)) => Err(Error::Gpu(error.to_string())),
            (result, None) => result,
        }
    }

    fn new_slot(
        &mut self,
        shape: Shape,
        format: Format,
        data: Option<&[f32]>,
    ) -> Result<Tensor, Error> {
        let tensor = Tensor::new(self.slots.len() as u32, shape, format);
        let new = self.storage(&[tensor], data)?;
        self.slots.push(new);
        Ok(tensor)
    }

    /// Room for each of the views; for `data`, of the first.
    fn storage(&mut self, views: &[Tensor], data: Option<&[f32]>) -> Result<Slot, Error> {
        let (summary, most) = (self.gpu.summary.to_string(), self.gpu.caps.max_binding_bytes);
        self.checked(|this| {
            let new = Slot::new(&this.gpu.device, views, most)
                .map_err(|what| Error::Gpu(format!("{what} of {summary}")))?;
            if let Some(data) = data {
                new.write(&this.gpu.queue, &views[0], data);
            }
            Ok(new)
        })
    }
}

impl crate::recording::Engine for Engine {
    fn caps(&self) -> &Caps {
        &self.gpu.caps
    }

    fn limit_bindings(&mut self, bytes: u64) {
        self.gpu.caps.max_binding_bytes = self.gpu.caps.max_binding_bytes.min(bytes);
    }

    fn upload(&mut self, shape: Shape, format: Format, data: &[f32]) -> Result<Tensor, Error> {
        assert_eq!(data.len(), shape.len(), "elements of {shape}");
        self.new_slot(shape, format, Some(data))
    }

    fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, Error> {
        self.new_slot(shape, format, None)
    }

    fn reserve(&mut self, views: &[Tensor]) -> Result<(), Error> {
        let slot = views[0].slot;
        assert!(views.iter().all(|view| view.slot == slot), "views of one slot");
        if views.iter().all(|view| self.slots[slot as usize].holds(view)) {
            return Ok(());
        }
        self.groups.retain(|(_, bindings), _| bindings.iter().all(|(s, _)| *s != slot));
        // Give it back before asking for more; if there is no more, a small one stays.
        let small = self.storage(&[views[0].shaped([0, 0])], None)?;
        std::mem::replace(&mut self.slots[slot as usize], small).destroy();
        self.slots[slot as usize] = self.storage(views, None)?;
        Ok(())
    }

    fn write(&mut self, tensor: &Tensor, data: &[u32]) {
        assert_eq!(data.len(), tensor.shape.len(), "elements of {}", tensor.shape);
        let Slot::Buffer(buffer) = &self.slots[tensor.slot as usize] else {
            panic!("integers in a texture")
        };
        self.gpu.queue.write_buffer(buffer, offset(tensor), bytemuck::cast_slice(data));
    }

    fn prepare(&mut self, programs: Vec<Arc<Program>>) {
        self.pipelines.begin(programs);
    }

    fn run(&mut self, recording: &Recording, output: &Tensor) -> Result<Vec<f32>, Error> {
        self.checked(|this| {
            let offsets = this.arrange(recording)?;
            let source = &this.slots[output.slot as usize];
            let bytes = source.readback_bytes(output);
            if this.readback.size() < bytes {
                let size = bytes.next_power_of_two();
                this.readback = buffer(&this.gpu.device, "readback", size, READBACK);
            }
            let mut encoder = this.gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (command, params) in recording.commands.iter().zip(offsets) {
                this.encode(&mut pass, command, params);
            }
            drop(pass);
            let source = &this.slots[output.slot as usize];
            source.copy_out(&mut encoder, output, &this.readback);
            this.submit(encoder, &this.readback, bytes, |raw| source.decode(output, raw))
        })
    }

    fn allocated_bytes(&self) -> u64 {
        let own = self.params.size() + self.readback.size();
        own + self.slots.iter().map(Slot::bytes).sum::<u64>()
    }
}

fn group_key(command: &Command) -> GroupKey {
    let bindings = command.bindings.iter().map(|tensor| (tensor.slot, tensor.offset));
    (address(&command.program), bindings.collect())
}

fn pod<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}
