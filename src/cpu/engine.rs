use super::{
    attention, layer_norm, linear, lora, panel::Weights, pool, rope, skip_bound::Rows, widen,
};
use crate::{
    elements::TensorData,
    error::Error,
    kernels::{self, Tier},
    recording::{
        Caps, Command, DispatchLimits, Faults, Format, InFlight, KernelId, Recording, Shape, Span,
        Tensor,
    },
    reference::{self, Biases, Part, Tensors, activation, elements, has_residual, is_set, rank},
};
use std::{f32::consts::LOG2_E, time::Instant};

/// CPU engine for recordings.
///
/// [`Tier::Reference`] runs the reference functions unchanged, on one thread.  [`Tier::Blocked`]
/// runs the fast versions of this module, on all cores and in the widest vectors.
pub struct Engine {
    tier: Tier,
    caps: Caps,
    dispatch_limits: DispatchLimits,
    tensors: Tensors,
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
            tensors: Tensors::default(),
            faults: Faults::default(),
        }
    }

    /// Runs a command; returns [`Span::kept`].
    fn dispatch(&mut self, command: &Command) -> Option<f64> {
        let tensors = &mut self.tensors;
        if self.tier == Tier::Reference {
            let kept = (command.program.kernel == KernelId::Attention).then_some(1.0);
            reference::run(command, tensors);
            return kept;
        }
        match command.program.kernel {
            KernelId::Embed => embed(command, tensors),
            KernelId::Linear => linear(command, tensors),
            KernelId::LinearGeglu => linear_geglu(command, tensors),
            KernelId::Lora => lora(command, tensors),
            KernelId::Rope => rope(command, tensors),
            KernelId::Attention => return Some(attention(command, tensors)),
            KernelId::LayerNorm => layer_norm(command, tensors),
            KernelId::Pool => pool(command, tensors),
            // A small part of the time.
            _ => reference::run(command, tensors),
        }
        None
    }
}

/// Elements that may be f16.
fn weights<'a>(tensors: &'a Tensors, tensor: &Tensor) -> Weights<'a> {
    match tensor.format {
        Format::F16 => Weights::F16(bytemuck::cast_slice(tensors.bytes(tensor))),
        _ => Weights::F32(tensors.f32(tensor)),
    }
}

/// Rows that may be a range of columns.
fn rows<'a>(tensors: &'a Tensors, tensor: &Tensor) -> Rows<'a> {
    let column = tensor.column as usize;
    Rows { data: &tensors.slot(tensor)[column..], step: tensor.step as usize }
}

fn embed(command: &Command, tensors: &mut Tensors) {
    let args = kernels::embed::Args::from(command);
    let params: kernels::embed::Params = command.params();
    let part = Part { first: params.first, rows: params.rows };
    tensors.store(args.x, |all, x| {
        let ids = all.u32(args.ids);
        let type_ids = all.u32(args.type_ids);
        let word = all.elements(args.word);
        let kind = all.f32(args.kind);
        let gamma = all.f32(args.gamma);
        let beta = all.f32(args.beta);
        let eps = (!is_set(command, "PLAIN")).then_some(params.eps);
        layer_norm::embed(ids, type_ids, &word, kind, gamma, beta, part, eps, x);
    });
}

fn linear(command: &Command, tensors: &mut Tensors) {
    let args = kernels::linear::Args::from(command);
    let params: kernels::linear::Params = command.params();
    let [xs, ys] = elements(params.first..params.rows, [params.inner, params.outer]);
    tensors.store(args.y, |all, y| {
        let x = &all.f32(args.x)[xs];
        let w = weights(all, args.w);
        let bias = all.f32(args.bias);
        let r = has_residual(command).then(|| &all.f32(args.r)[ys.clone()]);
        linear::linear(x, w, bias, activation(command), r, &mut y[ys.clone()]);
    });
}

fn linear_geglu(command: &Command, tensors: &mut Tensors) {
    let args = kernels::linear_geglu::Args::from(command);
    let params: kernels::linear_geglu::Params = command.params();
    let f = params.outer / 2;
    let gate_first = params.gate_first == 1;
    let [xs, hs] = elements(params.first..params.rows, [params.inner, f]);
    tensors.store(args.h, |all, h| {
        let x = &all.f32(args.x)[xs];
        let w = weights(all, args.w);
        linear::linear_geglu(x, w, f as usize, activation(command), gate_first, &mut h[hs]);
    });
}

fn lora(command: &Command, tensors: &mut Tensors) {
    let args = kernels::lora::Args::from(command);
    let params: kernels::lora::Params = command.params();
    let sizes = [params.inner as usize, params.outer as usize, rank(command)];
    tensors.store(args.y, |all, y| {
        let factors = [args.a, args.b].map(|tensor| all.f32(tensor));
        let r = has_residual(command).then(|| all.f32(args.r));
        lora::lora(all.f32(args.x), factors, all.u32(args.adapters), r, sizes, y);
    });
}

fn rope(command: &Command, tensors: &mut Tensors) {
    let args = kernels::rope::Args::from(command);
    let sizes = [args.y, args.table].map(|tensor| tensor.shape2()[1] as usize);
    tensors.store(args.y, |all, y| {
        rope::rope(rows(all, args.x), all.f32(args.table), all.u32(args.positions), sizes, y);
    });
}

/// Returns the share of visited pairs.
fn attention(command: &Command, tensors: &mut Tensors) -> f64 {
    let params: kernels::attention::Params = command.params();
    let skip = if params.skip > 0.0 { f32::NEG_INFINITY } else { params.skip * LOG2_E };
    reference::store_context(command, tensors, |all, args, sequences, heads, context| {
        let qkv = [args.q, args.k, args.v].map(|tensor| rows(all, tensor));
        let biases = Biases::of_command(command, all.f32(args.biases));
        attention::attention(qkv, biases, sequences, heads, skip, context)
    })
}

fn layer_norm(command: &Command, tensors: &mut Tensors) {
    let args = kernels::layer_norm::Args::from(command);
    let params: kernels::layer_norm::Params = command.params();
    tensors.store(args.y, |all, y| {
        let x = all.f32(args.x);
        let r = has_residual(command).then(|| all.f32(args.r));
        let gamma = all.f32(args.gamma);
        let norm = (params.eps, is_set(command, "RMS"));
        layer_norm::layer_norm(x, r, gamma, all.f32(args.beta), norm, y);
    });
}

fn pool(command: &Command, tensors: &mut Tensors) {
    let args = kernels::pool::Args::from(command);
    let params: kernels::pool::Params = command.params();
    let [_, d] = args.x.shape2();
    tensors.store(args.y, |all, y| {
        let x = all.f32(args.x);
        let (spans, _) = all.u32(args.spans).as_chunks();
        pool::pool(x, spans, d as usize, params.dims as usize, params.normalize == 1, y);
    });
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
        self.tensors.upload(shape, format, &data)
    }

    fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, Error> {
        self.tensors.alloc(shape, format)
    }

    fn reserve(&mut self, views: &[Tensor]) -> Result<(), Error> {
        self.tensors.reserve(views)
    }

    fn release(&mut self, tensors: &[Tensor]) -> Result<(), Error> {
        self.tensors.release(tensors);
        Ok(())
    }

    fn write(&mut self, tensor: &Tensor, data: &[u32]) -> Result<(), Error> {
        self.tensors.store(tensor, |_, buffer| buffer.copy_from_slice(bytemuck::cast_slice(data)));
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
        let mut elements = self.tensors.f32(output).to_vec();
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
        self.tensors.allocated_bytes()
    }
}
