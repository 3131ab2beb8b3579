use super::config::Config;
use crate::{
    batch::{self, PackedBatch},
    error::Error,
    kernels::attention::TILE,
    recording::{Engine, ROW_STEP, Tensor},
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
    /// \[T, D\]: the residual stream at the beginning and the end of a layer.
    pub(super) x: Tensor,
    /// \[T, D\]
    pub(super) q: Tensor,
    /// \[T, D\]
    pub(super) k: Tensor,
    /// \[T, D\]
    pub(super) v: Tensor,
    /// \[T, D\]: what attention gathered.
    pub(super) context: Tensor,
    /// \[T, D\]: what a block adds to the stream.
    pub(super) delta: Tensor,
    /// \[T, D\]: the stream between the two blocks of a layer.
    pub(super) a: Tensor,
    /// \[R, 2F\], R rows of the batch at a time.
    pub(super) gate_up: Tensor,
    /// \[R, F\]
    pub(super) h: Tensor,
    /// \[B, dims\]
    pub(super) y: Tensor,
}

/// Rows of the MLP's intermediates at most: enough to fill any GPU, 75 MB at base size.
const MLP_ROWS: u32 = 2048;

impl Scratch {
    pub(super) fn new(engine: &mut dyn Engine) -> Result<Self, Error> {
        let mut empty = |shape: [u32; 2]| engine.alloc(shape.into());
        Ok(Self {
            tiles: empty([0, 2])?,
            x: empty([0, 0])?,
            q: empty([0, 0])?,
            k: empty([0, 0])?,
            v: empty([0, 0])?,
            context: empty([0, 0])?,
            delta: empty([0, 0])?,
            a: empty([0, 0])?,
            gate_up: empty([0, 0])?,
            h: empty([0, 0])?,
            y: empty([0, 0])?,
            ids: engine.alloc([0].into())?,
            type_ids: engine.alloc([0].into())?,
            cu_seqlens: engine.alloc([0].into())?,
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

        let streams = [&mut self.x, &mut self.q, &mut self.k, &mut self.v];
        let streams = streams.into_iter().chain([&mut self.context, &mut self.delta, &mut self.a]);
        for tensor in streams {
            engine.resize(tensor, [t, d].into())?;
        }
        let rows = t.min(mlp_rows(engine.caps().max_binding_bytes, config.intermediate));
        engine.resize(&mut self.gate_up, [rows, 2 * config.intermediate].into())?;
        engine.resize(&mut self.h, [rows, config.intermediate].into())?;
        engine.resize(&mut self.y, [b, dims].into())
    }
}

/// Rows of \[R, 2F\] that fit into a binding, at most [`MLP_ROWS`].
fn mlp_rows(max_binding_bytes: u64, intermediate: u32) -> u32 {
    let rows = max_binding_bytes / (8 * u64::from(intermediate));
    let rows = rows.min(u64::from(MLP_ROWS)) as u32 / ROW_STEP * ROW_STEP;
    rows.max(ROW_STEP)
}
