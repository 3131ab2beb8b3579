//! Runs a recording: buffers, bind groups, one pass in each submission, one readback.

#[cfg(feature = "faults")]
use super::fault;
use super::{
    adapter::{AdapterSummary, Gpu},
    chain::Chain,
    pace::Pace,
    pipeline::params_size,
    pipeline_cache::PipelineCache,
    pipelines::{Pipelines, address},
    profile::Timestamps,
    readback::{self, Mapping, Pending, Readbacks},
    scope::scoped,
    slot::{Slot, UNIFORM, buffer, offset},
};
#[cfg(feature = "faults")]
use crate::recording::{Fault, Faults};
use crate::{
    elements::Elements,
    error::Error,
    recording::{Caps, Command, Format, Program, Recording, Shape, Span, Tensor, Ticket, slices},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Runs recordings on a [`Gpu`].
pub struct Engine {
    gpu: Gpu,
    slots: Vec<Slot>,
    pipelines: Pipelines,
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    params: wgpu::Buffer,
    readbacks: Readbacks,
    chain: Chain,
    pace: Arc<Mutex<Pace>>,
    /// Submissions that may be under way, the oldest first.
    queued: VecDeque<wgpu::SubmissionIndex>,
    #[cfg(feature = "faults")]
    faults: Faults,
}

/// Submissions under way at a time: enough for the device never to wait for the next.
const QUEUED: usize = 3;

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
        let make = || (params(&gpu.device), Chain::new(&gpu.device));
        let ((params, chain), error) = scoped(&gpu.device, make);
        if let Some(error) = error {
            tracing::warn!("{}: {error}", gpu.summary); // what uses them fails
        }
        Self {
            params,
            readbacks: Readbacks::default(),
            chain,
            pace: Arc::new(Mutex::new(Pace::new())),
            queued: VecDeque::new(),
            #[cfg(feature = "faults")]
            faults: Faults::default(),
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

    /// Hands a recording over, in submissions that each take a moment.
    fn begin(&mut self, recording: &Recording, output: &Tensor) -> Result<Pending, Error> {
        let offsets = self.arrange(recording)?;
        let costs = recording.commands.iter().map(|command| command.flops);
        let flops = costs.clone().sum();
        let mut parts = slices(costs, self.pace().most());
        if parts.is_empty() {
            parts.push((0..0, 0.0)); // for the copy
        }
        let (device, start) = (self.gpu.device.clone(), Instant::now());
        let source = &self.slots[output.slot as usize];
        let bytes = source.readback_bytes(output);
        let size = bytes + size_of::<u32>() as u64;
        let readback = self.readbacks.take(&device, size);
        let number = self.chain.begin(&device, &self.gpu.queue, parts.len());
        let last = parts.len() - 1;
        #[cfg(feature = "faults")]
        let fault = self.faults.next();
        for (n, (range, _)) in parts.into_iter().enumerate() {
            let range = range.start as usize..range.end as usize;
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (command, params) in recording.commands[range.clone()].iter().zip(&offsets[range]) {
                self.encode(&mut pass, command, *params);
            }
            drop(pass);
            #[cfg(feature = "faults")]
            if (n, fault) == (0, Some(Fault::Stale)) {
                encoder = device.create_command_encoder(&Default::default());
            } else {
                self.chain.link(&mut encoder, n);
            }
            #[cfg(not(feature = "faults"))]
            self.chain.link(&mut encoder, n);
            if n == last {
                #[cfg(feature = "faults")]
                if let Some(Fault::Hang(time)) = fault {
                    fault::spin(&device, &self.gpu.queue, &mut encoder, time);
                }
                self.slots[output.slot as usize].copy_out(&mut encoder, output, &readback);
                self.chain.copy_out(&mut encoder, n + 1, &readback, bytes);
                #[cfg(feature = "faults")]
                if fault == Some(Fault::NotFinite) {
                    fault::spoil(&device, &self.gpu.queue, &mut encoder, &readback);
                }
            }
            self.enqueue(encoder)?;
        }
        #[cfg(feature = "faults")]
        if fault == Some(Fault::Lost) {
            device.destroy();
        }
        let submission = self.queued.back().expect("one at least").clone();
        Ok(Pending {
            mapping: Mapping::new(readback, size, submission),
            output: *output,
            number,
            work: (flops, start),
            pace: Arc::clone(&self.pace),
            progress: self.gpu.progress.clone(),
            home: self.readbacks.clone(),
        })
    }

    /// Submits, when the device has come close enough.
    fn enqueue(&mut self, encoder: wgpu::CommandEncoder) -> Result<(), Error> {
        while self.queued.len() >= QUEUED {
            let oldest = self.queued.pop_front().expect("some are queued");
            self.gpu.progress.wait(&oldest)?;
        }
        self.queued.push_back(self.gpu.queue.submit([encoder.finish()]));
        Ok(())
    }

    /// Buffers in the place of those that may not have come to be.
    fn renew(&mut self) {
        self.groups.clear();
        let device = &self.gpu.device;
        let (new, error) = scoped(device, || (params(device), self.chain.renewed(device)));
        if let Some(error) = error {
            tracing::warn!("{}: {error}", self.gpu.summary);
        }
        (self.params, self.chain) = new;
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns whatever wgpu reports while `work` runs into an error.
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
        data: Option<&Elements>,
    ) -> Result<Tensor, Error> {
        let tensor = Tensor::new(self.slots.len() as u32, shape, format);
        let new = self.storage(&[tensor], data)?;
        self.slots.push(new);
        Ok(tensor)
    }

    /// Room for each of the views; for `data`, of the first.
    fn storage(&mut self, views: &[Tensor], data: Option<&Elements>) -> Result<Slot, Error> {
        let (summary, most) = (self.gpu.summary.to_string(), self.gpu.caps.max_binding_bytes);
        self.checked(|this| {
            let new = Slot::new(&this.gpu.device, views, most)
                .map_err(|what| Error::Memory(format!("{what} of {summary}")))?;
            #[cfg(feature = "faults")]
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
        data: Elements<'_>,
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
        // Given back before more is asked for; if there is no more, a small one stays.
        self.release(&views[..1])?;
        self.slots[slot as usize] = self.storage(views, None)?;
        Ok(())
    }

    fn release(&mut self, tensors: &[Tensor]) -> Result<(), Error> {
        // Nothing under way may use it then.
        if let Some(last) = self.queued.back() {
            self.gpu.progress.wait(last)?;
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

    fn dispatch_flops(&self) -> f64 {
        self.pace().most()
    }

    fn limit_dispatches(&mut self, flops: f64) {
        self.pace().give(flops);
    }

    fn limit_slice(&mut self, slice: Duration) {
        self.pace().cut(slice);
    }

    fn limit_wait(&mut self, patience: Duration) {
        self.gpu.progress.limit(patience);
    }

    #[cfg(feature = "faults")]
    fn inject(&mut self, faults: &Faults) {
        self.faults = faults.clone();
    }

    fn prepare(&mut self, programs: Vec<Arc<Program>>) {
        self.pipelines.begin(programs);
    }

    fn submit(&mut self, recording: &Recording, output: &Tensor) -> Result<Ticket, Error> {
        match self.checked(|this| this.begin(recording, output)) {
            Ok(pending) => Ok(Ticket::new(|| pending.finish())),
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
                let nanoseconds = ticks[1].wrapping_sub(ticks[0]) as f64 * period;
                let time = Duration::from_nanos(nanoseconds as u64);
                Span { word: command.program.word, time, kept: None }
            }));
        }
        Ok(spans)
    }

    fn allocated_bytes(&self) -> u64 {
        let own = self.params.size() + self.readbacks.bytes();
        own + self.slots.iter().map(Slot::bytes).sum::<u64>()
    }
}

/// Room for the parameters of a small model's dispatches.
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
