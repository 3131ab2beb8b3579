//! wgpu engine: buffers, bind groups, one pass per submission, one readback per run.

use super::{
    adapter::{AdapterSummary, Gpu},
    budget::{SubmissionBudget, Work},
    chain::SubmissionNonce,
    fault::RunFault,
    pipeline::params_size,
    pipeline_cache::PipelineCache,
    pipelines::{Pipelines, address},
    profile::Timestamps,
    readback::{self, Mapping, Readback, Readbacks},
    scope::scoped,
    slot::{Slot, UNIFORM, buffer, offset},
};
use crate::{
    elements::TensorData,
    error::Error,
    recording::{
        Caps, Command, DispatchLimits, Faults, Format, InFlight, Program, Recording, Shape, Span,
        Tensor, slices,
    },
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Engine on a [`Gpu`].
pub struct Engine {
    gpu: Gpu,
    slots: Vec<Slot>,
    pipelines: Pipelines,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    params: wgpu::Buffer,
    readbacks: Readbacks,
    chain: SubmissionNonce,
    budget: Arc<Mutex<SubmissionBudget>>,
    /// Submissions in flight, oldest first.
    queued: VecDeque<Queued>,
    faults: Faults,
}

/// A submission, its operations, and its submission time.
struct Queued {
    submission: wgpu::SubmissionIndex,
    work: Work,
    at: Instant,
}

/// Maximum submissions in flight: enough that the device never waits for the next.
const QUEUED: usize = 3;

/// Key of a bind group: its program (the address of its `Arc`, which `pipelines` keeps alive) and
/// the buffer and offset of each binding.
type GroupKey = (usize, Vec<(u32, u32)>);

impl Engine {
    /// Creates an engine without buffers.
    pub fn new(gpu: Gpu) -> Self {
        Self::with(gpu, None)
    }

    /// As [`Engine::new`], with compiled kernels kept on disk for later processes, if the driver
    /// supports it.  `JINABERT_CACHE` sets the directory.
    pub fn cached(gpu: Gpu) -> Self {
        let cache = PipelineCache::open(&gpu);
        Self::with(gpu, cache)
    }

    fn with(gpu: Gpu, cache: Option<PipelineCache>) -> Self {
        let make = || (params(&gpu.device), SubmissionNonce::new(&gpu.device));
        let ((params, chain), error) = scoped(&gpu.device, make);
        if let Some(error) = error {
            tracing::warn!("{}: {error}", gpu.summary); // reported again as an error on first use
        }
        Self {
            params,
            readbacks: Readbacks::default(),
            chain,
            budget: Arc::new(Mutex::new(SubmissionBudget::new(gpu.caps.software))),
            queued: VecDeque::new(),
            faults: Faults::default(),
            pipelines: Pipelines::new(&gpu, cache),
            gpu,
            slots: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// Adapter of the engine.
    pub fn summary(&self) -> &AdapterSummary {
        &self.gpu.summary
    }

    /// Compiles programs now, on all cores.  Their errors are reported on first use.
    pub fn compile(&mut self, programs: Vec<Arc<Program>>) {
        self.pipelines.compile(&programs);
    }

    /// Returns the device, without this engine's buffers and pipelines, for another engine.
    pub fn into_gpu(self) -> Gpu {
        self.gpu
    }

    /// Compiles new programs, creates bind groups, and uploads all `params`; returns the offset of
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

        for command in &recording.commands {
            if self.faults.refuses(command.program.file) {
                let kernel = command.program.name();
                let message = "as ordered".to_owned();
                return Err(Error::Compile { kernel, message });
            }
        }
        self.pipelines.complete(recording).map_err(|error| match self.gpu.progress.lost() {
            Some(reason) => Error::Gpu(reason),
            None => error,
        })?;
        for command in &recording.commands {
            let key = group_key(command);
            if !self.groups.contains_key(&key) {
                let group = self.bind(command);
                self.groups.insert(key, group);
            }
        }
        Ok(offsets)
    }

    /// Creates a bind group.  Buffers are bound from the tensor's offset to the end, so that one
    /// group serves every length; textures are bound whole.
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
            label: Some(command.program.name()),
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

    /// Submits a recording, split into short submissions.
    fn begin(&mut self, recording: &Recording, output: &Tensor) -> Result<Readback, Error> {
        let offsets = self.arrange(recording)?;
        let budget = self.budget();
        let shares = recording.commands.iter().map(|command| budget.share(command));
        let mut parts = slices(shares, 1.0);
        drop(budget);
        if parts.is_empty() {
            parts.push((0..0, 0.0)); // for the copy
        }
        let device = self.gpu.device.clone();
        let source = &self.slots[output.slot as usize];
        let bytes = source.readback_bytes(output);
        let size = bytes + size_of::<u32>() as u64;
        let readback = self.readbacks.take(&device, size);
        let number = self.chain.begin(&device, &self.gpu.queue, parts.len());
        let last = parts.len() - 1;
        let fault = RunFault::next(&self.faults);
        for (n, (range, _)) in parts.into_iter().enumerate() {
            let range = range.start as usize..range.end as usize;
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let commands = &recording.commands[range.clone()];
            for (command, params) in commands.iter().zip(&offsets[range]) {
                self.encode(&mut pass, command, *params);
            }
            drop(pass);
            if fault.skips(n) {
                encoder = device.create_command_encoder(&Default::default());
            } else {
                self.chain.link(&mut encoder, n);
            }
            if n == last {
                fault.before_copy(&device, &self.gpu.queue, &mut encoder);
                self.slots[output.slot as usize].copy_out(&mut encoder, output, &readback);
                self.chain.copy_out(&mut encoder, n + 1, &readback, bytes);
                fault.after_copy(&device, &self.gpu.queue, &mut encoder, &readback);
            }
            self.enqueue(encoder, Work::of(commands))?;
        }
        fault.after_submission(&device);
        // Submissions of this run that were not waited for.
        let mut rest = self.queued.iter().rev().take(last + 1);
        let work = Work::sum(rest.clone().map(|queued| queued.work));
        let start = rest.next_back().expect("one at least").at;
        let submission = self.queued.back().expect("one at least").submission.clone();
        Ok(Readback {
            mapping: Mapping::new(readback, size, submission),
            output: *output,
            number,
            work: (work, start),
            budget: Arc::clone(&self.budget),
            progress: self.gpu.progress.clone(),
            home: self.readbacks.clone(),
        })
    }

    /// Submits, after waiting until few enough submissions are in flight.
    fn enqueue(&mut self, encoder: wgpu::CommandEncoder, work: Work) -> Result<(), Error> {
        while self.queued.len() >= QUEUED {
            let Queued { submission, work, at } = self.queued.pop_front().expect("some are queued");
            let waited = self.gpu.progress.wait(&submission)?;
            self.budget().observe(work, at, waited);
        }
        let submission = self.gpu.queue.submit([encoder.finish()]);
        self.queued.push_back(Queued { submission, work, at: Instant::now() });
        Ok(())
    }

    /// Re-creates the buffers after an error, as they may be invalid.
    fn renew(&mut self) {
        self.groups.clear();
        let device = &self.gpu.device;
        let (new, error) = scoped(device, || (params(device), self.chain.renewed(device)));
        if let Some(error) = error {
            tracing::warn!("{}: {error}", self.gpu.summary);
        }
        (self.params, self.chain) = new;
    }

    fn budget(&self) -> MutexGuard<'_, SubmissionBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` and converts errors reported by wgpu.
    fn checked<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, Error>) -> Result<R, Error> {
        let device = self.gpu.device.clone();
        match scoped(&device, || work(self)) {
            (_, Some(error)) if self.gpu.progress.lost().is_some() => {
                Err(Error::Gpu(format!("device lost: {error}")))
            }
            (_, Some(error @ wgpu::Error::OutOfMemory { .. })) => {
                Err(Error::Memory(format!("{error}, on {}", self.gpu.summary)))
            }
            (_, Some(error)) => Err(Error::Gpu(error.to_string())),
            (result, None) => result,
        }
    }

    fn new_slot(
        &mut self,
        shape: Shape,
        format: Format,
        data: Option<&TensorData>,
    ) -> Result<Tensor, Error> {
        let tensor = Tensor::new(self.slots.len() as u32, shape, format);
        let new = self.storage(&[tensor], data)?;
        self.slots.push(new);
        Ok(tensor)
    }

    /// Allocates a slot that fits each of the views; `data`, if any, is of the first.
    fn storage(&mut self, views: &[Tensor], data: Option<&TensorData>) -> Result<Slot, Error> {
        let summary = self.gpu.summary.to_string();
        let most = self.gpu.caps.max_binding_bytes;
        self.checked(|this| {
            let new = Slot::new(&this.gpu.device, views, most)
                .map_err(|what| Error::Memory(format!("{what} of {summary}")))?;
            if !this.faults.has_room(crate::recording::Engine::allocated_bytes(this) + new.bytes())
            {
                return Err(Error::Memory(format!(
                    "no room, as ordered, for a tensor of {summary}"
                )));
            }
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

    fn upload(
        &mut self,
        shape: Shape,
        format: Format,
        data: TensorData<'_>,
    ) -> Result<Tensor, Error> {
        assert_eq!(data.len(), shape.len(), "elements of {shape}");
        self.new_slot(shape, format, Some(&data))
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
        // The old memory is released first; if there is no more, a small slot remains.
        self.release(&views[..1])?;
        self.slots[slot as usize] = self.storage(views, None)?;
        Ok(())
    }

    fn release(&mut self, tensors: &[Tensor]) -> Result<(), Error> {
        // No submission in flight may use it.
        if let Some(last) = self.queued.back() {
            self.gpu.progress.wait(&last.submission)?;
        }
        for tensor in tensors {
            let slot = tensor.slot;
            self.groups.retain(|(_, bindings), _| bindings.iter().all(|(s, _)| *s != slot));
            let small = self.storage(&[tensor.shaped([0, 0])], None)?;
            std::mem::replace(&mut self.slots[slot as usize], small).destroy();
        }
        Ok(())
    }

    fn write(&mut self, tensor: &Tensor, data: &[u32]) -> Result<(), Error> {
        assert_eq!(data.len(), tensor.shape.len(), "elements of {}", tensor.shape);
        self.checked(|this| {
            let Slot::Buffer(buffer) = &this.slots[tensor.slot as usize] else {
                panic!("integers in a texture")
            };
            this.gpu.queue.write_buffer(buffer, offset(tensor), bytemuck::cast_slice(data));
            Ok(())
        })
    }

    fn dispatch_limits(&self) -> DispatchLimits {
        self.budget().limits()
    }

    fn limit_dispatches(&mut self, flops: f64) {
        self.budget().fix_flops(flops);
    }

    fn limit_slice(&mut self, slice: Duration) {
        self.budget().limit_time(slice);
    }

    fn limit_wait(&mut self, patience: Duration) {
        self.gpu.progress.limit(patience);
    }

    fn inject(&mut self, faults: &Faults) {
        self.faults = faults.clone();
    }

    fn prepare(&mut self, programs: Vec<Arc<Program>>) {
        self.pipelines.begin(programs);
    }

    fn submit(
        &mut self,
        recording: &Recording,
        output: &Tensor,
    ) -> Result<InFlight<'static, Vec<f32>>, Error> {
        match self.checked(|this| this.begin(recording, output)) {
            Ok(pending) => Ok(InFlight::new(|| pending.finish())),
            Err(error) => {
                self.renew();
                Err(error)
            }
        }
    }

    fn profile(&mut self, recording: &Recording) -> Result<Vec<Span>, Error> {
        if !self.gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(Error::NoGpu { needs: format!("{} has no timestamps", self.gpu.summary) });
        }
        let mut spans = Vec::new();
        for commands in recording.commands.chunks(1024) {
            let part = Recording { commands: commands.to_vec(), ..Recording::new() };
            let ticks = self.checked(|this| {
                let timestamps = Timestamps::new(&this.gpu.device, commands.len());
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
                readback::read(&this.gpu, &timestamps.readback, encoder, pod::<u64>)
            })?;
            let period = f64::from(self.gpu.queue.get_timestamp_period());
            spans.extend(commands.iter().zip(ticks.chunks_exact(2)).map(|(command, ticks)| {
                let time = elapsed(ticks[0], ticks[1], period);
                Span { kernel: command.program.kernel, time, kept: None }
            }));
        }
        Ok(spans)
    }

    fn allocated_bytes(&self) -> u64 {
        let own = self.params.size() + self.readbacks.bytes();
        own + self.slots.iter().map(Slot::bytes).sum::<u64>()
    }
}

/// Time between two counter values.  A counter of 36 or 48 bits wraps every few hours; a span
/// across the wrap counts as 0, which is negligible.
fn elapsed(begin: u64, end: u64, period: f64) -> Duration {
    Duration::from_nanos((end.saturating_sub(begin) as f64 * period) as u64)
}

/// Uniform buffer for the parameters of a small model's dispatches.
fn params(device: &wgpu::Device) -> wgpu::Buffer {
    buffer(device, "params", 256 * 128, UNIFORM)
}

fn group_key(command: &Command) -> GroupKey {
    let bindings = command.bindings.iter().map(|tensor| (tensor.slot, tensor.offset));
    (address(&command.program), bindings.collect())
}

fn pod<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}
