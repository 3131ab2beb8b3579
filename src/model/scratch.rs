use super::config::Config;
use crate::{
    batch::{self, PackedBatch},
    error::Error,
    kernels::attention::TILE,
    recording::{Engine, Format, Page, ROW_STEP, Shape, Tensor},
};

/// Every tensor that depends on the batch, reused by every layer and every batch; grown when a
/// batch is larger than all before it.
pub(super) struct Scratch {
    /// \[T\], `u32`
    pub(super) ids: Tensor,
    /// \[T\], `u32`
    pub(super) type_ids: Tensor,
    /// \[B+1\], `u32`
    pub(super) cu_seqlens: Tensor,
    /// \[n, 2\], `u32`
    pub(super) tiles: Tensor,
    /// \[n, H\]: the largest norm among the keys of a tile.
    pub(super) norms: Tensor,
    /// \[T, D\]: the residual stream.
    pub(super) x: Tensor,
    /// \[T, D\]: what attention gathered, then the sum before the second LayerNorm.
    pub(super) n: Tensor,
    /// \[T, 3D\]: queries, keys and values side by side, where one binding holds them.
    pub(super) qkv: Option<Tensor>,
    /// \[T, D\]: columns of `qkv`, or tensors of their own.
    pub(super) q: Tensor,
    /// Likewise.
    pub(super) k: Tensor,
    /// Likewise.
    pub(super) v: Tensor,
    /// \[T, D\]: the sum before the first LayerNorm, in the place of q, k and v.
    pub(super) sum: Tensor,
    /// \[R, F\], R rows of the batch at a time, in the place of `sum`.
    pub(super) h: Tensor,
    /// \[T, D\] twice, for the code model.
    pub(super) extra: Option<[Tensor; 2]>,
    /// \[B, dims\]
    pub(super) y: Tensor,
    /// The slab of q, k, v, `sum` and `h`.
    wide: Tensor,
    /// Those of k and v where `wide` cannot hold them.
    apart: [Tensor; 2],
    format: Format,
}

/// Rows of the MLP's intermediate at most, on a GPU: enough to fill any, 25 MB at base size.
const MLP_ROWS: u32 = 2048;

impl Scratch {
    /// Empty; `extra` for the code model.
    pub(super) fn new(engine: &mut dyn Engine, format: Format, extra: bool) -> Result<Self, Error> {
        let mut empty = |format| engine.alloc([0, 0].into(), format);
        let wide = empty(format)?;
        let apart = [empty(format)?, empty(format)?];
        let [k, v] = apart;
        Ok(Self {
            tiles: empty(Format::F32)?,
            norms: empty(Format::F32)?,
            x: empty(format)?,
            n: empty(format)?,
            extra: if extra { Some([empty(format)?, empty(format)?]) } else { None },
            y: empty(Format::F32)?,
            ids: empty(Format::F32)?,
            type_ids: empty(Format::F32)?,
            cu_seqlens: empty(Format::F32)?,
            qkv: None,
            q: wide,
            k,
            v,
            sum: wide,
            h: wide,
            wide,
            apart,
            format,
        })
    }

    /// Takes the shapes of a batch and uploads its ids and work list.
    pub(super) fn fit(
        &mut self,
        engine: &mut dyn Engine,
        config: &Config,
        batch: &PackedBatch,
        dims: u32,
    ) -> Result<(), Error> {
        let (t, b, d) = (batch.tokens(), batch.sequences(), config.hidden);
        let tiles = batch::tiles(&batch.cu_seqlens, TILE);
        for (tensor, data) in [
            (&mut self.ids, &batch.ids),
            (&mut self.type_ids, &batch.type_ids),
            (&mut self.cu_seqlens, &batch.cu_seqlens),
        ] {
            engine.resize(tensor, [data.len() as u32].into())?;
            engine.write(tensor, data);
        }
        engine.resize(&mut self.tiles, [tiles.len() as u32, 2].into())?;
        engine.write(&self.tiles, tiles.as_flattened());
        engine.resize(&mut self.norms, [tiles.len() as u32, config.heads].into())?;

        let extra = self.extra.iter_mut().flatten();
        for tensor in [&mut self.x, &mut self.n].into_iter().chain(extra) {
            engine.resize(tensor, [t, d].into())?;
        }
        self.fit_wide(engine, config, t)?;
        engine.resize(&mut self.y, [b, dims].into())
    }

    /// The slab that serves three purposes, one after the other.
    fn fit_wide(&mut self, engine: &mut dyn Engine, config: &Config, t: u32) -> Result<(), Error> {
        let Config { hidden: d, intermediate: f, .. } = *config;
        let most = engine.caps().max_binding_bytes;
        let rows = match self.format {
            Format::Texture => t,
            Format::F32 => t.min(mlp_rows(most, f)),
        };
        // The code model normalises queries and keys on their way into tensors of their own.
        let fused = self.extra.is_none() && fits(self.format, most, [t, 3 * d]);
        let qkv: Shape = if fused { [t, 3 * d].into() } else { [t, d].into() };
        engine.reserve(&self.wide, &[qkv, [t, d].into(), [rows, f].into()])?;
        (self.sum, self.h) = (self.wide.shaped([t, d]), self.wide.shaped([rows, f]));
        if fused {
            let qkv = self.wide.shaped(qkv);
            let columns = |n| qkv.columns(n * d..(n + 1) * d);
            (self.q, self.k, self.v) = (columns(0), columns(1), columns(2));
            self.qkv = Some(qkv);
            return Ok(());
        }
        self.qkv = None;
        self.q = self.wide.shaped([t, d]);
        if self.extra.is_some() {
            self.v = self.q;
            return Ok(());
        }
        for tensor in &mut self.apart {
            engine.resize(tensor, [t, d].into())?;
        }
        [self.k, self.v] = self.apart;
        Ok(())
    }
}

/// Whether a device can hold a matrix for a kernel: in a binding, or in a texture.
fn fits(format: Format, max_binding_bytes: u64, shape: [u32; 2]) -> bool {
    match format {
        Format::F32 => 4 * Shape::from(shape).len() as u64 <= max_binding_bytes,
        Format::Texture => Page::extent(shape.into())[0] <= Page::HEIGHT,
    }
}

/// Rows of \[R, F\] that fit into a binding, at most [`MLP_ROWS`].
fn mlp_rows(max_binding_bytes: u64, intermediate: u32) -> u32 {
    let rows = max_binding_bytes / (4 * u64::from(intermediate));
    let rows = rows.min(u64::from(MLP_ROWS)) as u32 / ROW_STEP * ROW_STEP;
    rows.max(ROW_STEP)
}
