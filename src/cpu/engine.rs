use super::{attention, layer_norm, linear, panel::Weights, pool, skip_bound::Rows, widen};
use crate::{
    activation::Activation,
    elements::TensorData,
    error::Error,
    kernels::{self, Tier, attention::TILE},
    memory::Zeroed,
    recording::{
        Caps, Command, Const, DispatchLimits, Faults, Format, InFlight, KernelId, Recording, Shape,
        Span, Tensor,
    },
    reference::{self, Heads, Part, Sequence},
};
use std::{borrow::Cow, f32::consts::LOG2_E, mem, ops::Range, time::Instant};

/// CPU engine for recordings.
///
/// [`Tier::Reference`] runs the reference functions unchanged, on one thread.  [`Tier::Blocked`]
/// runs the fast versions of this module, on all cores and in the widest vectors.
pub struct Engine {
    tier: Tier,
    caps: Caps,
    dispatch_limits: DispatchLimits,
    slots: Vec<Zeroed>,
    faults: Faults,
}

impl Engine {
    /// Capabilities of every CPU; some can also read f16 weights.
    pub const CAPS: Caps = Caps {
        // Shapes count elements in u32, of four bytes each.
        max_binding_bytes: 4 * u32::MAX as u64,
        cpu: true,
        software: true,
        gl: false,
        half: false,
        textures: false,
        subgroup: None,
        matrix: None,
        vendor: 0,
        workgroup_bytes: 0,
    };

    /// Creates an engine without buffers, for one of the CPU's two tiers.
    pub fn new(tier: Tier) -> Self {
        let caps = Caps { half: widen::available(), ..Self::CAPS };
        assert!(tier.suits(&caps), "{tier} kernels are not for the CPU");
        Self {
            tier,
            caps,
            dispatch_limits: DispatchLimits::NONE,
            slots: Vec::new(),
            faults: Faults::default(),
        }
    }

    fn slot(&self, tensor: &Tensor) -> &[f32] {
        assert_eq!(tensor.format, Format::F32, "only tables and weights are in other formats");
        let elements: &[f32] = bytemuck::cast_slice(self.slots[tensor.slot as usize].get());
        &elements[tensor.offset as usize..]
    }

    fn f32(&self, tensor: &Tensor) -> &[f32] {
        &self.slot(tensor)[..tensor.shape.len()]
    }

    /// Elements that may be f16.
    fn weights(&self, tensor: &Tensor) -> Weights<'_> {
        let bytes = self.slots[tensor.slot as usize].get();
        match tensor.format {
            Format::F16 => Weights::F16(bytemuck::cast_slice(bytes)),
            _ => Weights::F32(self.f32(tensor)),
        }
    }

    /// Word embeddings.
    fn table(&self, tensor: &Tensor) -> TensorData<'_> {
        match self.weights(tensor) {
            Weights::F16(rows) => TensorData::F16(Cow::Borrowed(rows)),
            Weights::F32(rows) => rows.into(),
        }
    }

    /// Rows that may be a range of columns.
    fn rows(&self, tensor: &Tensor) -> Rows<'_> {
        let column = tensor.column as usize;
        let step = tensor.step as usize;
        Rows { data: &self.slot(tensor)[column..], step }
    }

    /// Elements in row-major order, without gaps.
    fn dense(&self, tensor: &Tensor) -> Cow<'_, [f32]> {
        let ([rows, cols], step) = (tensor.shape2(), tensor.step as usize);
        if step == cols as usize {
            return self.f32(tensor).into();
        }
        let columns = tensor.column as usize..(tensor.column + cols) as usize;
        let rows = self.slot(tensor).chunks(step).take(rows as usize);
        rows.flat_map(|row| &row[columns.clone()]).copied().collect()
    }

    fn u32(&self, tensor: &Tensor) -> &[u32] {
        bytemuck::cast_slice(self.f32(tensor))
    }

    /// Borrows the elements of `tensor` for writing, and this engine for reading everything else.
    fn store<R>(&mut self, tensor: &Tensor, fill: impl FnOnce(&Self, &mut [f32]) -> R) -> R {
        let slot = &mut self.slots[tensor.slot as usize];
        let mut buffer = mem::replace(slot, Zeroed::NONE);
        let elements: &mut [f32] = bytemuck::cast_slice_mut(buffer.get_mut());
        let result = fill(self, &mut elements[tensor.offset as usize..][..tensor.shape.len()]);
        self.slots[tensor.slot as usize] = buffer;
        result
    }

    /// Runs a command; returns [`Span::kept`].
    fn dispatch(&mut self, command: &Command) -> Option<f64> {
        match command.program.kernel {
            KernelId::Embed => self.embed(command),
            KernelId::Linear => self.linear(command),
            KernelId::LinearGeglu => self.linear_geglu(command),
            KernelId::KeyNorm => self.key_norm(command),
            KernelId::Attention => return Some(self.attention(command)),
            KernelId::LayerNorm => self.layer_norm(command),
            KernelId::Pool => self.pool(command),
            KernelId::Gather => self.gather(command),
            kernel @ (KernelId::MultiplyAdd | KernelId::Copy) => {
                unreachable!("{kernel} measures GPUs only")
            }
        }
        None
    }

    fn embed(&mut self, command: &Command) {
        let a = kernels::embed::Args::from(command);
        let p: kernels::embed::Params = command.params();
        let part = Part { first: p.first, rows: p.rows };
        self.store(a.x, |m, x| {
            let ids = m.u32(a.ids);
            let type_ids = m.u32(a.type_ids);
            let word = m.table(a.word);
            let kind = m.f32(a.kind);
            let gamma = m.f32(a.gamma);
            let beta = m.f32(a.beta);
            match m.tier {
                Tier::Reference => {
                    let word = word.widened();
                    reference::embed(ids, type_ids, &word, kind, gamma, beta, part, p.eps, x);
                }
                _ => layer_norm::embed(ids, type_ids, &word, kind, gamma, beta, part, p.eps, x),
            }
        });
    }

    fn linear(&mut self, command: &Command) {
        let a = kernels::linear::Args::from(command);
        let p: kernels::linear::Params = command.params();
        let residual = command.program.constant("RESIDUAL") == Const::Bool(true);
        let activation = activation(command);
        let (tier, [xs, ys]) = (self.tier, elements(p.first..p.rows, [p.inner, p.outer]));
        self.store(a.y, |m, y| {
            let x = &m.f32(a.x)[xs];
            let bias = m.f32(a.bias);
            let r = residual.then(|| &m.f32(a.r)[ys.clone()]);
            let y = &mut y[ys.clone()];
            match tier {
                Tier::Reference => reference::linear(x, m.f32(a.w), bias, activation, r, y),
                _ => linear::linear(x, m.weights(a.w), bias, activation, r, y),
            }
        });
    }

    fn linear_geglu(&mut self, command: &Command) {
        let a = kernels::linear_geglu::Args::from(command);
        let p: kernels::linear_geglu::Params = command.params();
        let f = p.outer as usize / 2;
        let gate_first = p.gate_first == 1;
        let activation = activation(command);
        let (tier, [xs, hs]) = (self.tier, elements(p.first..p.rows, [p.inner, p.outer / 2]));
        self.store(a.h, |m, h| {
            let x = &m.f32(a.x)[xs];
            let h = &mut h[hs];
            match tier {
                Tier::Reference => {
                    reference::linear_geglu(x, m.f32(a.w), activation, gate_first, h, f);
                }
                _ => linear::linear_geglu(x, m.weights(a.w), f, activation, gate_first, h),
            }
        });
    }

    fn key_norm(&mut self, command: &Command) {
        let a = kernels::key_norm::Args::from(command);
        self.store(a.norms, |m, norms| {
            let tiles = tiles(m.u32(a.tiles), |[_, _, _, keys]| keys);
            let ([_, d], k) = (a.k.shape2(), m.dense(a.k));
            reference::key_norm(&k, d as usize, &tiles, norms);
        });
    }

    fn attention(&mut self, command: &Command) -> f64 {
        let a = kernels::attention::Args::from(command);
        let p: kernels::attention::Params = command.params();
        self.store(a.context, |m, context| {
            let tiles = tiles(m.u32(a.tiles), |[_, end, ..]| end);
            if (p.first as usize, p.tiles as usize) == (0, tiles.len()) {
                return m.attend(&a, p, context);
            }
            // The CPU engine sets no limit, but a recording may be split for another one.
            let mut all = vec![0.0; context.len()];
            let kept = m.attend(&a, p, &mut all);
            for tile in &tiles[p.first as usize..p.tiles as usize] {
                let d = a.context.shape2()[1] as usize;
                let rows = tile.start * d..tile.end * d;
                context[rows.clone()].copy_from_slice(&all[rows]);
            }
            kept
        })
    }

    /// Processes all entries of the tile list; returns the share of visited pairs.
    fn attend(
        &self,
        a: &kernels::attention::Args,
        p: kernels::attention::Params,
        context: &mut [f32],
    ) -> f64 {
        let heads = Heads { count: p.heads as usize, scale: p.scale };
        let slopes = self.f32(a.slopes);
        let sequences = sequences(self.u32(a.tiles));
        match self.tier {
            Tier::Reference => {
                let [q, k, v] = [a.q, a.k, a.v].map(|tensor| self.dense(tensor));
                reference::attention(&q, &k, &v, slopes, &sequences, heads, context);
                1.0
            }
            _ => {
                let qkv = [a.q, a.k, a.v].map(|tensor| self.rows(tensor));
                let skip = if p.skip > 0.0 { f32::NEG_INFINITY } else { p.skip * LOG2_E };
                attention::attention(qkv, slopes, &sequences, heads, skip, context)
            }
        }
    }

    fn layer_norm(&mut self, command: &Command) {
        let a = kernels::layer_norm::Args::from(command);
        let p: kernels::layer_norm::Params = command.params();
        let residual = command.program.constant("RESIDUAL") == Const::Bool(true);
        let tier = self.tier;
        self.store(a.y, |m, y| {
            let x = m.f32(a.x);
            let r = residual.then(|| m.f32(a.r));
            let gamma = m.f32(a.gamma);
            let beta = m.f32(a.beta);
            match tier {
                Tier::Reference => reference::layer_norm(x, r, gamma, beta, p.eps, y),
                _ => layer_norm::layer_norm(x, r, gamma, beta, p.eps, y),
            }
        });
    }

    fn pool(&mut self, command: &Command) {
        let a = kernels::pool::Args::from(command);
        let p: kernels::pool::Params = command.params();
        let ([_, d], dims) = (a.x.shape2(), p.dims as usize);
        self.store(a.y, |m, y| {
            let (x, (spans, _)) = (m.f32(a.x), m.u32(a.spans).as_chunks());
            let pool = match m.tier {
                Tier::Reference => reference::pool,
                _ => pool::pool,
            };
            pool(x, spans, d as usize, dims, p.normalize == 1, y);
        });
    }

    fn gather(&mut self, command: &Command) {
        let a = kernels::gather::Args::from(command);
        self.store(a.y, |m, y| reference::gather(m.f32(a.x), m.u32(a.rows), y));
    }
}

impl crate::recording::Engine for Engine {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn limit_bindings(&mut self, bytes: u64) {
        self.caps.max_binding_bytes = self.caps.max_binding_bytes.min(bytes);
    }

    fn dispatch_limits(&self) -> DispatchLimits {
        self.dispatch_limits
    }

    fn limit_dispatches(&mut self, flops: f64) {
        self.dispatch_limits = DispatchLimits::all(flops);
    }

    fn upload(
        &mut self,
        shape: Shape,
        format: Format,
        data: TensorData<'_>,
    ) -> Result<Tensor, Error> {
        let tensor = self.alloc(shape, format)?;
        let buffer = self.slots[tensor.slot as usize].get_mut();
        match format {
            Format::F16 => data.write_f16(bytemuck::cast_slice_mut(buffer)),
            _ => data.write_f32(bytemuck::cast_slice_mut(buffer)),
        }
        Ok(tensor)
    }

    fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, Error> {
        assert!(!format.texture(), "the CPU has no textures");
        self.slots.push(room(shape.len(), format)?);
        Ok(Tensor::new(self.slots.len() as u32 - 1, shape, format))
    }

    fn reserve(&mut self, views: &[Tensor]) -> Result<(), Error> {
        let buffer = &mut self.slots[views[0].slot as usize];
        let needed = views.iter().map(|view| view.shape.len()).max().unwrap_or(0);
        if buffer.get().len() < 4 * needed {
            *buffer = Zeroed::NONE; // release the old buffer before allocating more
            *buffer = room(needed, Format::F32)?;
        }
        Ok(())
    }

    fn release(&mut self, tensors: &[Tensor]) -> Result<(), Error> {
        for tensor in tensors {
            self.slots[tensor.slot as usize] = Zeroed::NONE;
        }
        Ok(())
    }

    fn write(&mut self, tensor: &Tensor, data: &[u32]) -> Result<(), Error> {
        self.store(tensor, |_, buffer| buffer.copy_from_slice(bytemuck::cast_slice(data)));
        Ok(())
    }

    fn inject(&mut self, faults: &Faults) {
        self.faults = faults.clone();
    }

    fn submit(
        &mut self,
        recording: &Recording,
        output: &Tensor,
    ) -> Result<InFlight<'static, Vec<f32>>, Error> {
        for command in &recording.commands {
            self.dispatch(command);
        }
        let mut elements = self.f32(output).to_vec();
        if self.faults.spoils_next() {
            elements[0] = f32::NAN;
        }
        Ok(InFlight::new(|| Ok(elements)))
    }

    fn profile(&mut self, recording: &Recording) -> Result<Vec<Span>, Error> {
        let commands = recording.commands.iter();
        let spans = commands.map(|command| {
            let start = Instant::now();
            let kept = self.dispatch(command);
            Span { kernel: command.program.kernel, time: start.elapsed(), kept }
        });
        Ok(spans.collect())
    }

    fn allocated_bytes(&self) -> u64 {
        self.slots.iter().map(|slot| slot.get().len() as u64).sum()
    }
}

fn room(elements: usize, format: Format) -> Result<Zeroed, Error> {
    let bytes = elements * format.bytes() as usize;
    Zeroed::new(bytes)
        .map_err(|_| Error::Memory(format!("no room for a tensor of {bytes} bytes on the CPU")))
}

fn activation(command: &Command) -> Activation {
    let name = command.program.import("activation");
    name.and_then(Activation::from_import).expect("a product imports its activation")
}

/// Element ranges of some rows, in matrices of the given widths.
fn elements<const N: usize>(rows: Range<u32>, widths: [u32; N]) -> [Range<usize>; N] {
    let [start, end] = [rows.start, rows.end].map(|row| row as usize);
    widths.map(|width| start * width as usize..end * width as usize)
}

/// Token range of each entry of a tile list, up to its `end`.
fn tiles(list: &[u32], end: impl Fn([u32; 4]) -> u32) -> Vec<Range<usize>> {
    let entries = list.as_chunks().0.iter();
    let range = |&tile: &[u32; 4]| {
        let [first, ..] = tile;
        first as usize..end(tile).min(first + TILE).max(first) as usize
    };
    entries.map(range).collect()
}

/// Sequences covered by a tile list.
fn sequences(list: &[u32]) -> Vec<Sequence> {
    let first = list.as_chunks().0.iter().filter(|[first, _, start, _]| first == start);
    let sequence = |&[first, end, _, keys]: &[u32; 4]| {
        let [first, end, keys] = [first, end, keys].map(|token| token as usize);
        Sequence { queries: first..end, keys: first..keys }
    };
    first.map(sequence).collect()
}
