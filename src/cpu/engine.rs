use super::{
    attention,
    gemm::{Matrix, multiply_add},
};
use crate::{
    error::Error,
    kernels::{self, Tier},
    recording::{Caps, Command, Const, Recording, Shape, Tensor},
    reference::{self, Activation, Heads, Part},
};
use rayon::prelude::*;

/// Runs recordings on the CPU.
///
/// [`Tier::Naive`] runs the twins as they stand, on one thread: the definition.  [`Tier::Tiled`]
/// spreads rows over the cores and takes matrix products from the `gemm` crate.
pub struct Engine {
    tier: Tier,
    caps: Caps,
    slots: Vec<Vec<f32>>,
}

impl Engine {
    /// An engine without buffers.
    pub fn new(tier: Tier) -> Self {
        // Shapes count elements in u32; four bytes each.
        let caps = Caps { max_binding_bytes: 4 * u64::from(u32::MAX), software: true, gl: false };
        Self { tier, caps, slots: Vec::new() }
    }

    fn f32(&self, tensor: &Tensor) -> &[f32] {
        &self.slots[tensor.slot as usize][tensor.offset as usize..][..tensor.shape.len()]
    }

    fn u32(&self, tensor: &Tensor) -> &[u32] {
        bytemuck::cast_slice(self.f32(tensor))
    }

    /// Lends out the elements of `tensor` for writing, and this engine for reading everything else.
    fn store(&mut self, tensor: &Tensor, fill: impl FnOnce(&Self, &mut [f32])) {
        let mut buffer = std::mem::take(&mut self.slots[tensor.slot as usize]);
        fill(self, &mut buffer[tensor.offset as usize..][..tensor.shape.len()]);
        self.slots[tensor.slot as usize] = buffer;
    }

    fn dispatch(&mut self, command: &Command) {
        match command.program.word {
            "embed" => self.embed(command),
            "linear" => self.linear(command),
            "attention" => self.attention(command),
            "layer_norm" => self.layer_norm(command),
            "geglu" => self.geglu(command),
            "pool" => self.pool(command),
            word => panic!("kernel `{word}` has no CPU twin"),
        }
    }

    /// Calls `work` on consecutive blocks of rows of `y` (`width` elements each): all of them at
    /// once in the naive tier, otherwise 64 or fewer at a time on all cores.  `work` receives the
    /// first row's number.
    fn rows(&self, y: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        match self.tier {
            Tier::Naive => work(0, y),
            Tier::Tiled => {
                let rows = y.len() / width;
                let block = rows.div_ceil(4 * rayon::current_num_threads()).clamp(1, 64);
                let blocks = y.par_chunks_mut(block * width).enumerate();
                blocks.for_each(|(n, y)| work(n * block, y));
            }
        }
    }

    fn embed(&mut self, command: &Command) {
        let a = kernels::embed::Args::from(command);
        let p: kernels::embed::Params = command.params();
        let part = Part { first: p.first, rows: p.rows };
        self.store(a.x, |m, x| {
            let (ids, type_ids) = (m.u32(a.ids), m.u32(a.type_ids));
            let (word, kind) = (m.f32(a.word), m.f32(a.kind));
            let (gamma, beta) = (m.f32(a.gamma), m.f32(a.beta));
            m.rows(x, gamma.len(), |first, x| {
                let tokens = first..first + x.len() / gamma.len();
                let (ids, type_ids) = (&ids[tokens.clone()], &type_ids[tokens]);
                reference::embed(ids, type_ids, word, kind, gamma, beta, part, p.eps, x);
            });
        });
    }

    fn linear(&mut self, command: &Command) {
        let a = kernels::linear::Args::from(command);
        let tier = self.tier;
        self.store(a.y, |m, y| {
            let (x, w, bias) = (m.f32(a.x), m.f32(a.w), m.f32(a.bias));
            match tier {
                Tier::Naive => reference::linear(x, w, bias, y),
                Tier::Tiled => {
                    let n = bias.len();
                    let (t, k) = (y.len() / n, w.len() / n);
                    y.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias));
                    let (x, w) = (Matrix::new(x, t, k, k), Matrix::new(w, n, k, k).transposed());
                    multiply_add(x, w, 1.0, Some(1.0), y, rayon::current_num_threads());
                }
            }
        });
    }

    fn attention(&mut self, command: &Command) {
        let a = kernels::attention::Args::from(command);
        let p: kernels::attention::Params = command.params();
        let heads = Heads { count: p.heads as usize, scale: p.scale };
        let tier = self.tier;
        self.store(a.context, |m, context| {
            let qkv = [m.f32(a.q), m.f32(a.k), m.f32(a.v)];
            let (slopes, cu_seqlens) = (m.f32(a.slopes), m.u32(a.cu_seqlens));
            match tier {
                Tier::Naive => {
                    let [q, k, v] = qkv;
                    reference::attention(q, k, v, slopes, cu_seqlens, heads, context);
                }
                Tier::Tiled => attention::attention(qkv, slopes, cu_seqlens, heads, context),
            }
        });
    }

    fn layer_norm(&mut self, command: &Command) {
        let a = kernels::layer_norm::Args::from(command);
        let p: kernels::layer_norm::Params = command.params();
        let residual = command.program.constant("RESIDUAL") == Const::Bool(true);
        self.store(a.y, |m, y| {
            let (x, r) = (m.f32(a.x), residual.then(|| m.f32(a.r)));
            let (gamma, beta) = (m.f32(a.gamma), m.f32(a.beta));
            let d = gamma.len();
            m.rows(y, d, |first, y| {
                let part = first * d..first * d + y.len();
                let r = r.map(|r| &r[part.clone()]);
                reference::layer_norm(&x[part], r, gamma, beta, p.eps, y);
            });
        });
    }

    fn geglu(&mut self, command: &Command) {
        let a = kernels::geglu::Args::from(command);
        let gate_first = command.program.constant("GATE_FIRST") == Const::Bool(true);
        let activation = match command.program.import("activation") {
            Some("relu") => Activation::Relu,
            _ => Activation::Gelu,
        };
        let f = a.h.shape2()[1] as usize;
        self.store(a.h, |m, h| {
            let gate_up = m.f32(a.gate_up);
            m.rows(h, f, |first, h| {
                let part = &gate_up[2 * first * f..][..2 * h.len()];
                reference::geglu(part, activation, gate_first, h, f);
            });
        });
    }

    fn pool(&mut self, command: &Command) {
        let a = kernels::pool::Args::from(command);
        let p: kernels::pool::Params = command.params();
        let ([_, d], dims) = (a.x.shape2(), p.dims as usize);
        self.store(a.y, |m, y| {
            let (x, cu_seqlens) = (m.f32(a.x), m.u32(a.cu_seqlens));
            m.rows(y, dims, |first, y| {
                let sequences = &cu_seqlens[first..=first + y.len() / dims];
                reference::pool(x, sequences, d as usize, dims, p.normalize == 1, y);
            });
        });
    }
}

impl crate::recording::Engine for Engine {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn limit_bindings(&mut self, bytes: u64) {
        self.caps.max_binding_bytes = self.caps.max_binding_bytes.min(bytes);
    }

    fn upload(&mut self, shape: Shape, data: &[f32]) -> Result<Tensor, Error> {
        assert_eq!(data.len(), shape.len(), "elements of {shape}");
        self.slots.push(data.to_vec());
        Ok(Tensor { slot: self.slots.len() as u32 - 1, offset: 0, shape })
    }

    fn alloc(&mut self, shape: Shape) -> Result<Tensor, Error> {
        self.slots.push(zeros(shape)?);
        Ok(Tensor { slot: self.slots.len() as u32 - 1, offset: 0, shape })
    }

    fn resize(&mut self, tensor: &mut Tensor, shape: Shape) -> Result<(), Error> {
        let buffer = &mut self.slots[tensor.slot as usize];
        if buffer.len() < shape.len() {
            *buffer = Vec::new(); // give the old one back before asking for more
            *buffer = zeros(shape)?;
        }
        *tensor = Tensor { shape, ..*tensor };
        Ok(())
    }

    fn write(&mut self, tensor: &Tensor, data: &[u32]) {
        self.store(tensor, |_, buffer| buffer.copy_from_slice(bytemuck::cast_slice(data)));
    }

    fn run(&mut self, recording: &Recording, output: &Tensor) -> Result<Vec<f32>, Error> {
        recording.commands.iter().for_each(|command| self.dispatch(command));
        Ok(self.f32(output).to_vec())
    }

    fn allocated_bytes(&self) -> u64 {
        self.slots.iter().map(|slot| 4 * slot.len() as u64).sum()
    }
}

fn zeros(shape: Shape) -> Result<Vec<f32>, Error> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(shape.len()).map_err(|_| {
        Error::Gpu(format!("no memory for a tensor of {} bytes on the CPU", 4 * shape.len()))
    })?;
    buffer.resize(shape.len(), 0.0);
    Ok(buffer)
}
