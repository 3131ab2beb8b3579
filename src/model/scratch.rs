use super::config::Config;
use crate::{
    batch::{self, PackedBatch},
    error::Error,
    kernels::{Version, attention::TILE},
    recording::{Engine, Format, Page, ROW_STEP, Shape, Tensor},
};

/// Every tensor that depends on the batch, reused by every layer and every batch; grown when a
/// batch is larger than all before it.
pub(super) struct Scratch {
    /// \[T\], `u32`
    pub(super) ids: Tensor,
    /// \[T\], `u32`
    pub(super) type_ids: Tensor,
    /// \[n, 4\], `u32`
    pub(super) tiles: Tensor,
    /// \[n, 2\], `u32`
    pub(super) spans: Tensor,
    /// Keys that each tile faces.
    pub(super) keys: Vec<u32>,
    /// \[n, H\]: the largest norm among the keys of a tile.
    pub(super) norms: Tensor,
    /// \[T, D\]: the residual stream.
    pub(super) x: Tensor,
    /// \[T, D\]: the sum before the second LayerNorm.
    pub(super) n: Tensor,
    /// \[T, D\]: what attention gathered, in the place of `n`.
    pub(super) context: Tensor,
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
    /// \[T, D\]: its normalised queries and keys, in the place of `extra`.
    pub(super) normed: [Tensor; 2],
    /// \[n, dims\]
    pub(super) y: Tensor,
    /// The slab of q, k, v, `sum` and `h`.
    wide: Tensor,
    /// Those of k and v where `wide` cannot hold them.
    apart: [Tensor; 2],
    version: Version,
}

/// Rows of the MLP's intermediate at most, on a GPU: enough to fill any, 25 MB at base size.
const MLP_ROWS: u32 = 2048;

impl Scratch {
    /// Empty; `extra` for the code model.
    pub(super) fn new(
        engine: &mut dyn Engine,
        version: Version,
        extra: bool,
    ) -> Result<Self, Error> {
        let (stream, other) = (version.stream(), version.wide());
        let mut empty = |format| engine.alloc([0, 0].into(), format);
        let (x, n, wide) = (empty(stream)?, empty(stream)?, empty(other)?);
        let [k, v] = [empty(other)?, empty(other)?];
        let extra = if extra { Some([empty(stream)?, empty(stream)?]) } else { None };
        Ok(Self {
            tiles: empty(Format::F32)?,
            keys: Vec::new(),
            norms: empty(Format::F32)?,
            x,
            n,
            context: n,
            normed: extra.unwrap_or([n; 2]),
            extra,
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
            version,
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
        let (t, d) = (batch.tokens(), config.hidden);
        let tiles = batch::tiles(&batch.cu_seqlens, &batch.keys, TILE);
        for (tensor, data) in [(&mut self.ids, &batch.ids), (&mut self.type_ids, &batch.type_ids)] {
            engine.resize(tensor, [data.len() as u32].into())?;
            engine.write(tensor, data)?;
        }
        engine.resize(&mut self.tiles, [tiles.len() as u32, 4].into())?;
        engine.write(&self.tiles, tiles.as_flattened())?;
        engine.resize(&mut self.spans, [batch.spans.len() as u32, 2].into())?;
        engine.write(&self.spans, batch.spans.as_flattened())?;
        self.keys = batch::tile_keys(&tiles);
        engine.resize(&mut self.norms, [tiles.len() as u32, config.heads].into())?;

        let extra = self.extra.iter_mut().flatten();
        for tensor in [&mut self.x, &mut self.n].into_iter().chain(extra) {
            engine.resize(tensor, [t, d].into())?;
        }
        let other = self.version.wide();
        self.context = self.n.viewed([t, d], other);
        self.normed = self.extra.unwrap_or([self.n; 2]).map(|n| n.viewed([t, d], other));
        self.fit_wide(engine, config, t)?;
        engine.resize(&mut self.y, [batch.spans.len() as u32, dims].into())
    }

    /// Gives everything back: a batch that does not fit leaves room for one that does.
    pub(super) fn release(&self, engine: &mut dyn Engine) -> Result<(), Error> {
        let Self { ids, type_ids, tiles, spans, norms, x, n, y, wide, .. } = *self;
        let mut tensors = vec![ids, type_ids, tiles, spans, norms, x, n, y, wide];
        tensors.extend(self.apart);
        tensors.extend(self.extra.iter().flatten());
        engine.release(&tensors)
    }

    /// The slab that serves three purposes, one after the other.
    fn fit_wide(&mut self, engine: &mut dyn Engine, config: &Config, t: u32) -> Result<(), Error> {
        let Config { hidden: d, intermediate: f, .. } = *config;
        let most = engine.caps().max_binding_bytes;
        let format = self.version.wide();
        let rows = match format.texture() {
            true => t,
            false => t.min(mlp_rows(most / u64::from(format.bytes()), f)),
        };
        // The code model normalises queries and keys on their way into tensors of their own.
        let fused = self.extra.is_none() && fits(format, most, [t, 3 * d]);
        let qkv = self.wide.shaped([t, if fused { 3 * d } else { d }]);
        self.sum = self.wide.viewed([t, d], self.version.stream());
        self.h = self.wide.shaped([rows, f]);
        engine.reserve(&[qkv, self.sum, self.h])?;
        if fused {
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
    match format.texture() {
        true => Page::extent(shape.into())[0] <= Page::HEIGHT,
        false => {
            let bytes = u64::from(format.bytes()) * Shape::from(shape).len() as u64;
            bytes <= max_binding_bytes
        }
    }
}

/// Rows of \[R, F\] that fit into a binding, at most [`MLP_ROWS`].
pub(super) fn mlp_rows(max_elements: u64, intermediate: u32) -> u32 {
    let rows = max_elements / u64::from(intermediate);
    let rows = rows.min(u64::from(MLP_ROWS)) as u32 / ROW_STEP * ROW_STEP;
    rows.max(ROW_STEP)
}
