use super::{
    architecture::{Architecture, Positions},
    config::Config,
    lora::{LoraScratch, LoraWeights},
};
use crate::{
    batch::PackedBatch,
    error::Error,
    kernels::{KernelVariant, attention::TILE, rope, work_list},
    recording::{Engine, Format, ROW_STEP, Shape, Tensor, TexturePages},
};
use std::borrow::Cow;

/// Tensors whose size depends on the batch, reused by every layer and every batch; they grow with
/// the largest batch.
pub(super) struct Scratch {
    /// \[T\], `u32`
    pub(super) ids: Tensor,
    /// \[T\], `u32`: rows of [`Weights::kind`](super::weights::Weights::kind)
    pub(super) type_ids: Tensor,
    /// \[n, 4\], `u32`
    pub(super) tiles: Tensor,
    /// \[n, 2\], `u32`
    pub(super) spans: Tensor,
    /// Number of keys for each tile of queries.
    pub(super) keys: Vec<u32>,
    /// Maximum norm of the keys of a tile, \[n, H\].
    pub(super) norms: Tensor,
    /// Residual stream, \[T, D\].
    pub(super) x: Tensor,
    /// Sum before the second LayerNorm, \[T, D\].
    pub(super) n: Tensor,
    /// Output of attention, \[T, D\]; shares memory with `n` if it is as wide.
    pub(super) context: Tensor,
    /// Buffer for an output of attention of another width.
    own_context: Tensor,
    /// Queries, keys and values side by side, \[T, 3D\], if one binding holds them.
    pub(super) qkv: Option<Tensor>,
    /// Queries, \[T, D\]: columns of `qkv`, or a separate tensor.
    pub(super) q: Tensor,
    /// Keys, likewise.
    pub(super) k: Tensor,
    /// Values, likewise.
    pub(super) v: Tensor,
    /// Sum before the first LayerNorm, \[T, D\]; shares memory with q, k and v.
    pub(super) sum: Tensor,
    /// MLP intermediate, \[R, F\], for R rows of the batch at a time; shares memory with `sum`.
    pub(super) h: Tensor,
    /// Two tensors \[T, D\], if queries and keys are normalised or rotated, or the graph is T5's.
    pub(super) extra: Option<[Tensor; 2]>,
    /// Normalised or rotated queries and keys, \[T, D\]; share memory with `extra`.
    pub(super) qk: [Tensor; 2],
    /// Cosines and sines of rotary positions.
    pub(super) rope: Option<RopeTable>,
    /// Tensors of the adapters, if the model has some.
    pub(super) lora: Option<LoraScratch>,
    /// \[n, dims\]
    pub(super) y: Tensor,
    /// Buffer for q, k, v, `sum` and `h`.
    wide: Tensor,
    /// Buffers for k and v if `wide` cannot hold them.
    apart: [Tensor; 2],
    /// True if queries, keys and values come from separate products.
    separate: bool,
    /// True if there is a row for each position.
    absolute: bool,
    variant: KernelVariant,
}

/// Table of rotary positions, and the position of each token.
pub(super) struct RopeTable {
    /// \[P, E\]
    pub(super) table: Tensor,
    /// \[T\], `u32`
    pub(super) positions: Tensor,
    /// P of the table that was written.
    written: u32,
}

impl RopeTable {
    fn new(engine: &mut dyn Engine) -> Result<Self, Error> {
        let [table, positions] =
            [engine.alloc([0, 0].into(), Format::F32)?, engine.alloc([0, 0].into(), Format::F32)?];
        Ok(Self { table, positions, written: 0 })
    }

    /// Uploads the positions of a batch, and a longer table if it needs one.
    fn fit(
        &mut self,
        engine: &mut dyn Engine,
        config: &Config,
        cu_seqlens: &[u32],
    ) -> Result<(), Error> {
        /// Positions of the first table: those of most texts.
        const LEAST: u32 = 512;
        let longest = cu_seqlens.windows(2).map(|range| range[1] - range[0]).max().unwrap_or(0);
        if longest > self.written {
            let rows = longest.next_power_of_two().max(LEAST);
            let e = config.head_width();
            engine.resize(&mut self.table, [rows, e].into())?;
            let table = rope::table(rows, e, config.rope_theta);
            engine.write(&self.table, bytemuck::cast_slice(&table))?;
            self.written = rows;
        }
        let positions: Vec<u32> = positions(cu_seqlens).collect();
        engine.resize(&mut self.positions, [positions.len() as u32].into())?;
        engine.write(&self.positions, &positions)
    }
}

/// Position of each token in its sequence.
fn positions(cu_seqlens: &[u32]) -> impl Iterator<Item = u32> {
    cu_seqlens.windows(2).flat_map(|range| 0..range[1] - range[0])
}

/// Row of each token's type and position, of a table with `count` positions for each type.
fn positioned(batch: &PackedBatch, count: u32) -> Vec<u32> {
    let rows = batch.type_ids.iter().zip(positions(&batch.cu_seqlens));
    rows.map(|(kind, position)| kind * count + position).collect()
}

/// Rows of the MLP's intermediate at a time on a GPU: at least 2,048, 25 MB at base size, and up to
/// 8,192 if they fit into the memory of q, k and v, as a large GPU can run that many tiles.
const MLP_ROWS: [u32; 2] = [2048, 8192];

impl Scratch {
    /// Creates empty tensors.
    pub(super) fn new(
        engine: &mut dyn Engine,
        variant: KernelVariant,
        architecture: &Architecture,
        adapted: bool,
    ) -> Result<Self, Error> {
        let lora = if adapted { Some(LoraScratch::new(engine, variant)?) } else { None };
        let rotary = architecture.positions == Positions::Rotary;
        let rope = if rotary { Some(RopeTable::new(engine)?) } else { None };
        let stream = variant.stream();
        let other = variant.wide();
        let mut empty = |format| engine.alloc([0, 0].into(), format);
        let x = empty(stream)?;
        let n = empty(stream)?;
        let wide = empty(other)?;
        let k = empty(other)?;
        let v = empty(other)?;
        let relative = architecture.positions == Positions::Relative;
        let extra = if rotary || relative || architecture.qk_norm {
            Some([empty(stream)?, empty(stream)?])
        } else {
            None
        };
        Ok(Self {
            tiles: empty(Format::F32)?,
            keys: Vec::new(),
            norms: empty(Format::F32)?,
            x,
            n,
            context: n,
            own_context: empty(other)?,
            qk: extra.unwrap_or([n; 2]),
            extra,
            rope,
            lora,
            y: empty(Format::F32)?,
            ids: empty(Format::F32)?,
            type_ids: empty(Format::F32)?,
            spans: empty(Format::F32)?,
            qkv: None,
            q: wide,
            k,
            v,
            sum: wide,
            h: wide,
            wide,
            apart: [k, v],
            separate: architecture.qk_norm,
            absolute: architecture.positions == Positions::Absolute,
            variant,
        })
    }

    /// Sets the shapes for a batch and uploads its ids and work list.
    pub(super) fn fit(
        &mut self,
        engine: &mut dyn Engine,
        config: &Config,
        lora: Option<&LoraWeights>,
        batch: &PackedBatch,
        dims: u32,
    ) -> Result<(), Error> {
        let t = batch.tokens();
        let d = config.hidden;
        let tiles = work_list::tiles(&batch.cu_seqlens, &batch.keys, TILE);
        let kinds = if self.absolute {
            Cow::from(positioned(batch, config.max_length as u32))
        } else if batch.is_adapted() {
            (0..t).collect()
        } else {
            Cow::from(&batch.type_ids)
        };
        for (tensor, data) in [(&mut self.ids, &batch.ids[..]), (&mut self.type_ids, &kinds)] {
            engine.resize(tensor, [data.len() as u32].into())?;
            engine.write(tensor, data)?;
        }
        engine.resize(&mut self.tiles, [tiles.len() as u32, 4].into())?;
        engine.write(&self.tiles, tiles.as_flattened())?;
        engine.resize(&mut self.spans, [batch.spans.len() as u32, 2].into())?;
        engine.write(&self.spans, batch.spans.as_flattened())?;
        self.keys = work_list::tile_keys(&tiles);
        engine.resize(&mut self.norms, [tiles.len() as u32, config.heads].into())?;

        let extra = self.extra.iter_mut().flatten();
        for tensor in [&mut self.x, &mut self.n].into_iter().chain(extra) {
            engine.resize(tensor, [t, d].into())?;
        }
        let other = self.variant.wide();
        self.context = if config.inner == d {
            self.n.viewed([t, d], other)
        } else {
            engine.resize(&mut self.own_context, [t, config.inner].into())?;
            self.own_context
        };
        self.qk = self.extra.unwrap_or([self.n; 2]).map(|n| n.viewed([t, d], other));
        if let Some(rope) = &mut self.rope {
            rope.fit(engine, config, &batch.cu_seqlens)?;
        }
        self.fit_wide(engine, config, t)?;
        if let (Some(scratch), Some(weights), true) = (&mut self.lora, lora, batch.is_adapted()) {
            scratch.fit(engine, weights, config, batch, self.h.shape2()[0])?;
        }
        engine.resize(&mut self.y, [batch.spans.len() as u32, dims].into())
    }

    /// Releases all tensors: a batch that does not fit frees memory for one that does.
    pub(super) fn release(&mut self, engine: &mut dyn Engine) -> Result<(), Error> {
        let Self { ids, type_ids, tiles, spans, norms, x, n, own_context, y, wide, .. } = *self;
        let mut tensors = vec![ids, type_ids, tiles, spans, norms, x, n, own_context, y, wide];
        tensors.extend(self.apart);
        tensors.extend(self.extra.iter().flatten());
        if let Some(rope) = &mut self.rope {
            tensors.extend([rope.table, rope.positions]);
            rope.written = 0;
        }
        tensors.extend(self.lora.iter().flat_map(LoraScratch::tensors));
        engine.release(&tensors)
    }

    /// Resizes the buffer that serves three purposes in turn.
    fn fit_wide(&mut self, engine: &mut dyn Engine, config: &Config, t: u32) -> Result<(), Error> {
        let Config { hidden: d, intermediate: f, inner, .. } = *config;
        let most = engine.caps().max_binding_bytes;
        let format = self.variant.wide();
        // The code model normalises queries and keys into separate tensors.
        let fused = !self.separate && fits(format, most, [t, 3 * inner]);
        let columns = if fused { 3 * inner } else { inner };
        let rows = if format.texture() {
            t
        } else {
            let slab = u64::from(t) * u64::from(columns);
            t.min(mlp_rows(most / u64::from(format.bytes()), slab, f))
        };
        let qkv = self.wide.shaped([t, columns]);
        self.sum = self.wide.viewed([t, d], self.variant.stream());
        self.h = self.wide.shaped([rows, f]);
        engine.reserve(&[qkv, self.sum, self.h])?;
        if fused {
            let columns = |n| qkv.columns(n * inner..(n + 1) * inner);
            self.q = columns(0);
            self.k = columns(1);
            self.v = columns(2);
            self.qkv = Some(qkv);
            return Ok(());
        }
        self.qkv = None;
        self.q = self.wide.shaped([t, inner]);
        if self.separate {
            self.v = self.q;
            return Ok(());
        }
        for tensor in &mut self.apart {
            engine.resize(tensor, [t, inner].into())?;
        }
        [self.k, self.v] = self.apart;
        Ok(())
    }
}

/// True if a device can hold a matrix for a kernel: in a binding, or in a texture.
fn fits(format: Format, max_binding_bytes: u64, shape: [u32; 2]) -> bool {
    if format.texture() {
        TexturePages::extent(shape.into())[0] <= TexturePages::HEIGHT
    } else {
        let bytes = u64::from(format.bytes()) * Shape::from(shape).len() as u64;
        bytes <= max_binding_bytes
    }
}

/// Rows of \[R, F\] that fit into a binding and, above the minimum of [`MLP_ROWS`], into a buffer
/// of `slab` elements.
pub(super) fn mlp_rows(max_elements: u64, slab: u64, intermediate: u32) -> u32 {
    let [least, most] = MLP_ROWS.map(u64::from);
    let rows = (slab / u64::from(intermediate)).clamp(least, most);
    let rows = rows.min(max_elements / u64::from(intermediate)) as u32 / ROW_STEP * ROW_STEP;
    rows.max(ROW_STEP)
}
