use super::{
    attention,
    gemm::{Matrix, multiply_add},
};
use crate::{
    error::Error,
    kernels::{self, Tier, attention::TILE},
    recording::{Caps, Command, Const, Format, Recording, Shape, Tensor},
    reference::{self, Activation, Heads, Part},
};
use rayon::prelude::*;
use std::{borrow::Cow, ops::Range};

/// Runs recordings on the CPU.
///
/// [`Tier::Twin`] runs the twins as they stand, on one thread: the definition.  [`Tier::Blocked`]
/// spreads rows over the cores and takes matrix products from the `gemm` crate.
pub struct Engine {
    tier: Tier,
    caps: Caps,
    slots: Vec<Vec<f32>>,
}

impl Engine {
    /// An engine without buffers, for one of the CPU's two tiers.
    pub fn new(tier: Tier) -> Self {
        // Shapes count elements in u32; four bytes each.
        let max_binding_bytes = 4 * u64::from(u32::MAX);
        let caps = Caps {
            max_binding_bytes,
            cpu: true,
            software: true,
            gl: false,
            textures: false,
            subgroup: None,
        };
        assert!(tier.suits(&caps), "{tier} kernels are not for the CPU");
        Self { tier, caps, slots: Vec::new() }
    }

    fn f32(&self, tensor: &Tensor) -> &[f32] {
        &self.slots[tensor.slot as usize][tensor.offset as usize..][..tensor.shape.len()]
    }

    /// The elements of what may be a range of columns, one after the other.
    fn dense(&self, tensor: &Tensor) -> Cow<'_, [f32]> {
        let ([_, cols], step) = (tensor.shape2(), tensor.step as usize);
        if step == cols as usize {
            return self.f32(tensor).into();
        }
        let rows = &self.slots[tensor.slot as usize][tensor.offset as usize..];
        let columns = tensor.column as usize..(tensor.column + cols) as usize;
        let rows = rows.chunks(step).take(tensor.shape2()[0] as usize);
        rows.flat_map(|row| &row[columns.clone()]).copied().collect()
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
            "linear_geglu" => self.linear_geglu(command),
            "key_norm" => self.key_norm(command),
            "attention" => self.attention(command),
            "layer_norm" => self.layer_norm(command),
            "pool" => self.pool(command),
            word => panic!("kernel `{word}` has no CPU twin"),
        }
    }

    /// Calls `work` on consecutive blocks of rows of `y` (`width` elements each): all of them at
    /// once by the twins, otherwise 64 or fewer at a time on all cores.  `work` receives the
    /// first row's number.
    fn rows(&self, y: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        match self.tier {
            Tier::Twin => work(0, y),
            _ => {
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
        let residual = command.program.constant("RESIDUAL") == Const::Bool(true);
        let tier = self.tier;
        self.store(a.y, |m, y| {
            let (x, w, bias) = (m.f32(a.x), m.f32(a.w), m.f32(a.bias));
            let r = residual.then(|| m.f32(a.r));
            match tier {
                Tier::Twin => reference::linear(x, w, bias, r, y),
                _ => linear(x, w, bias, r, y),
            }
        });
    }

    fn linear_geglu(&mut self, command: &Command) {
        let a = kernels::linear_geglu::Args::from(command);
        let p: kernels::linear_geglu::Params = command.params();
        let (f, gate_first) = (p.outer as usize / 2, p.gate_first == 1);
        let activation = match command.program.import("activation") {
            Some("relu") => Activation::Relu,
            _ => Activation::Gelu,
        };
        let tier = self.tier;
        self.store(a.h, |m, h| {
            let (x, w) = (m.f32(a.x), m.f32(a.w));
            match tier {
                Tier::Twin => reference::linear_geglu(x, w, activation, gate_first, h, f),
                _ => linear_geglu(x, w, activation, gate_first, h, f),
            }
        });
    }

    fn key_norm(&mut self, command: &Command) {
        let a = kernels::key_norm::Args::from(command);
        self.store(a.norms, |m, norms| {
            let tiles = ranges(m.u32(a.tiles), m.u32(a.cu_seqlens));
            let ([_, d], k) = (a.k.shape2(), m.dense(a.k));
            reference::key_norm(&k, d as usize, &tiles, norms);
        });
    }

    fn attention(&mut self, command: &Command) {
        let a = kernels::attention::Args::from(command);
        let p: kernels::attention::Params = command.params();
        let heads = Heads { count: p.heads as usize, scale: p.scale };
        let tier = self.tier;
        self.store(a.context, |m, context| {
            let (slopes, cu_seqlens) = (m.f32(a.slopes), m.u32(a.cu_seqlens));
            let [q, k, v] = [a.q, a.k, a.v].map(|tensor| m.dense(tensor));
            match tier {
                Tier::Twin => {
                    reference::attention(&q, &k, &v, slopes, cu_seqlens, heads, context);
                }
                _ => attention::attention([&q, &k, &v], slopes, cu_seqlens, heads, context),
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

    fn upload(&mut self, shape: Shape, format: Format, data: &[f32]) -> Result<Tensor, Error> {
        assert_eq!(data.len(), shape.len(), "elements of {shape}");
        self.slots.push(data.to_vec());
        Ok(Tensor::new(self.slots.len() as u32 - 1, shape, format))
    }

    fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, Error> {
        assert_eq!(format, Format::F32, "the CPU has no textures");
        self.slots.push(zeros(shape.len())?);
        Ok(Tensor::new(self.slots.len() as u32 - 1, shape, format))
    }

    fn reserve(&mut self, tensor: &Tensor, shapes: &[Shape]) -> Result<(), Error> {
        let buffer = &mut self.slots[tensor.slot as usize];
        let needed = shapes.iter().map(Shape::len).max().unwrap_or(0);
        if buffer.len() < needed {
            *buffer = Vec::new(); // give the old one back before asking for more
            *buffer = zeros(needed)?;
        }
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

fn zeros(elements: usize) -> Result<Vec<f32>, Error> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(elements).map_err(|_| {
        Error::Gpu(format!("no memory for a tensor of {} bytes on the CPU", 4 * elements))
    })?;
    buffer.resize(elements, 0.0);
    Ok(buffer)
}

/// The tokens of each entry of a tile list.
fn ranges(tiles: &[u32], cu_seqlens: &[u32]) -> Vec<Range<usize>> {
    let entries = tiles.as_chunks::<2>().0.iter();
    let range = |&[sequence, first]: &[u32; 2]| {
        let end = cu_seqlens[sequence as usize + 1].min(first + TILE);
        first as usize..end as usize
    };
    entries.map(range).collect()
}

/// [`reference::linear`], blocked, on all cores.  w: \[K, N\].
fn linear(x: &[f32], w: &[f32], bias: &[f32], r: Option<&[f32]>, y: &mut [f32]) {
    let n = bias.len();
    let (t, k) = (y.len() / n, w.len() / n);
    match r {
        None => y.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)),
        Some(r) => {
            for (y, r) in y.chunks_exact_mut(n).zip(r.chunks_exact(n)) {
                y.iter_mut().zip(r).zip(bias).for_each(|((y, r), bias)| *y = r + bias);
            }
        }
    }
    let (x, w) = (Matrix::new(x, t, k, k), Matrix::new(w, k, n, n));
    multiply_add(x, w, 1.0, Some(1.0), y, rayon::current_num_threads());
}

/// [`reference::linear_geglu`], a block of rows at a time.  w: \[K, 2F\].
fn linear_geglu(
    x: &[f32],
    w: &[f32],
    activation: Activation,
    gate_first: bool,
    h: &mut [f32],
    f: usize,
) {
    let k = w.len() / (2 * f);
    let w = Matrix::new(w, k, 2 * f, 2 * f);
    let rows = 256.min(h.len() / f);
    let mut gate_up = vec![0.0; rows * 2 * f];
    for (x, h) in x.chunks(rows * k).zip(h.chunks_mut(rows * f)) {
        let t = h.len() / f;
        let gate_up = &mut gate_up[..2 * h.len()];
        let threads = rayon::current_num_threads();
        multiply_add(Matrix::new(x, t, k, k), w, 1.0, None, gate_up, threads);
        let pairs = gate_up.par_chunks(2 * f).zip(h.par_chunks_mut(f));
        pairs.for_each(|(row, h)| reference::geglu(row, activation, gate_first, h, f));
    }
}
