//! Tiling of matrix products, and the memory layout of their weights.

use super::{
    KernelVariant, Tier, gpu_versions, share,
    tier::{ARM, INTEL},
};
use crate::{
    elements::{TensorData, reordered},
    recording::{Const, Shape},
};
use bytemuck::Pod;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Tiling of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tile {
    /// One output per invocation; ignored by the CPU engine.
    Naive {
        /// Invocations per workgroup.
        wg: u32,
        /// Layout of the weights that the engine expects.
        layout: Layout,
    },
    /// A tile of outputs per workgroup, with several outputs per invocation.
    Tiled {
        /// Rows of y per invocation.
        tm: u32,
        /// Columns of y per invocation.
        tn: u32,
        /// Rows of y per workgroup.
        bm: u32,
        /// Columns of y per workgroup.
        bn: u32,
        /// Inner elements staged at a time, for each slice.
        bk: u32,
        /// Split-K: number of slices of the staged inner elements, each summed by its own
        /// invocations and then added; for few rows, whose tiles alone do not fill a GPU.
        slices: u32,
    },
    /// Outputs in registers, operands from textures.
    Texture {
        /// Invocations per workgroup.
        wg: u32,
        /// Lanes that share their loads; 1 for no sharing.
        s: u32,
        /// Groups of `s` lanes along N in a workgroup.
        lx: u32,
        /// Rows of y per invocation.
        tm: u32,
        /// Columns of y per invocation.
        tn: u32,
    },
    /// Four blocks of subgroup matrices.
    Matrix {
        /// Invocations per workgroup.
        wg: u32,
        /// Rows and columns of a subgroup matrix.
        m: u32,
        /// Subgroup matrices of a block along T.
        along_t: u32,
        /// Subgroup matrices of a block along N.
        along_n: u32,
    },
}

/// Rows of a weight matrix in one CPU panel.
pub const PANEL: usize = 64;

/// Element order of a weight matrix \[N, K\].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Layout {
    /// Row-major \[N, K\], as in PyTorch.
    Rows,
    /// Panels of [`PANEL`] rows, the last maybe narrower, each \[K, PANEL\]: CPU products read them
    /// sequentially.
    Panels,
    /// Texels of four rows, \[N/4, K, 4\]: a texel holds the four factors of one k.
    Texels,
}

impl Tile {
    /// Default tile of a tier.
    pub fn new(tier: Tier) -> Self {
        match tier {
            Tier::Reference | Tier::Naive => Self::Naive { wg: 64, layout: Layout::Rows },
            Tier::Blocked => Self::Naive { wg: 64, layout: Layout::Panels },
            Tier::Tiled => Self::Tiled { tm: 8, tn: 8, bm: 64, bn: 64, bk: 16, slices: 1 },
            Tier::Texture => Self::Texture { wg: 64, s: 1, lx: 8, tm: 4, tn: 8 },
            Tier::Subgroup(s) => {
                let tm = 32 / s;
                let tn = if s < 8 { 32 } else { 64 };
                Self::Texture { wg: s, s, lx: 1, tm, tn }
            }
            Tier::Matrix { size, lanes } => {
                let along_n = if size < 16 { 2 } else { 4 };
                Self::Matrix { wg: 4 * lanes, m: size, along_t: 4, along_n }
            }
        }
    }

    /// Tile for many rows that suits a vendor's compiler, if it is not the default.
    pub fn of_vendor(vendor: u32, tier: Tier) -> Option<Self> {
        match (vendor, tier) {
            (ARM, Tier::Texture) => Some(Self::Texture { wg: 64, s: 1, lx: 8, tm: 2, tn: 8 }),
            // Half the sums per invocation: twice the invocations of a subgroup.
            (INTEL, Tier::Tiled) => {
                Some(Self::Tiled { tm: 4, tn: 8, bm: 64, bn: 64, bk: 16, slices: 1 })
            }
            _ => None,
        }
    }

    /// Tiles of a tier by maximum number of rows, ascending; the last is the default, without a
    /// maximum.  Each sliced tile sums in its own order.
    ///
    /// A single query has few rows, and a few tiles of 64 by 64 do not fill a GPU: 16 rows by 512
    /// columns are 8 of them.  In tiles of 16 by 16 they are 32 workgroups, and each reads 512
    /// inner elements in 8 steps of 64, instead of 32 steps of 16.
    pub fn by_rows(tier: Tier) -> Vec<(u32, Self)> {
        let tiled = |bm, slices| Self::Tiled { tm: 8, tn: 8, bm, bn: bm, bk: 4, slices };
        let few = match (tier, Self::new(tier)) {
            (Tier::Tiled, _) => vec![(16, tiled(16, 16)), (64, tiled(32, 8))],
            // A group of lanes with 16 rows in total: no lane computes unused rows.
            (Tier::Subgroup(_), Self::Texture { wg, s, lx, tn, .. }) => {
                vec![(16, Self::Texture { wg, s, lx, tm: 16 / s, tn })]
            }
            _ => vec![],
        };
        few.into_iter().chain([(u32::MAX, Self::new(tier))]).collect()
    }

    /// Tiles for a tuning search for products of at most `rows` rows, the default first.  All but
    /// the sliced ones, which are for few rows, sum in the order of k: they give the same bits.
    pub fn candidates(tier: Tier, rows: u32) -> Vec<Self> {
        let by_rows = Self::by_rows(tier).into_iter();
        let mut all: Vec<_> = by_rows.filter(|(most, _)| rows <= *most).map(|(_, t)| t).collect();
        let few = rows <= 64;
        match tier {
            Tier::Tiled => {
                let sizes = [
                    (8, 8, 32, 64, 16),
                    (8, 8, 64, 32, 16),
                    (8, 8, 128, 64, 16),
                    (8, 8, 64, 128, 16),
                    (8, 8, 128, 128, 8),
                    (4, 8, 32, 64, 16),
                    (4, 8, 64, 64, 16),
                ];
                let sizes = sizes.iter().filter(|(.., bm, _, _)| !few || *bm <= 64);
                let tile = |&(tm, tn, bm, bn, bk)| Self::Tiled { tm, tn, bm, bn, bk, slices: 1 };
                all.extend(sizes.map(tile));
            }
            Tier::Texture => {
                let sizes = [
                    (8, 8, 8),
                    (4, 2, 8),
                    (8, 2, 8),
                    (8, 1, 8),
                    (8, 4, 16),
                    (8, 2, 16),
                    (4, 8, 16),
                ];
                all.extend(sizes.map(|(lx, tm, tn)| Self::Texture { wg: 64, s: 1, lx, tm, tn }));
            }
            Tier::Subgroup(s) => {
                let sizes = [(32, 32), (16, 64), (48, 48), (16, 32), (8, 64), (64, 32), (48, 32)];
                let sizes = sizes.iter().filter(|(rows, _)| rows % s == 0 && (!few || *rows <= 32));
                let tile = |&(rows, tn)| Self::Texture { wg: s, s, lx: 1, tm: rows / s, tn };
                all.extend(sizes.map(tile));
            }
            Tier::Reference | Tier::Blocked | Tier::Naive | Tier::Matrix { .. } => {}
        }
        let mut seen = Vec::new();
        all.retain(|tile| {
            !seen.contains(tile) && {
                seen.push(*tile);
                true
            }
        });
        all
    }

    /// Number of slices in which the inner elements are summed.
    pub fn slices(&self) -> u32 {
        if let Self::Tiled { slices, .. } = self { *slices } else { 1 }
    }

    /// Tiles of all variants covered by `programs()`.
    pub(super) fn all() -> impl Iterator<Item = (KernelVariant, Self)> {
        let tiles = |variant: KernelVariant| Self::by_rows(variant.tier).into_iter().rev();
        let of = move |variant| tiles(variant).map(move |(_, tile)| (variant, tile));
        let matrices = [(16, 64), (16, 32), (8, 32)];
        let matrices = matrices.map(|(size, lanes)| Tier::Matrix { size, lanes }.into());
        let plain = gpu_versions().into_iter().chain(matrices);
        // Texture kernels have the same text.
        let mixed = matrices.into_iter().chain([Tier::Tiled.into()]);
        let mixed = mixed.map(|variant| KernelVariant { half_weights: true, ..variant });
        plain.chain(mixed).flat_map(of)
    }

    pub(super) fn constants(&self) -> Vec<(&'static str, Const)> {
        match *self {
            Self::Naive { wg, .. } => vec![("WG", wg.into())],
            Self::Texture { wg, s, lx, tm, tn } => vec![
                ("WG", wg.into()),
                ("S", s.into()),
                ("LX", lx.into()),
                ("TM", tm.into()),
                ("TN", tn.into()),
            ],
            Self::Tiled { tm, tn, bm, bn, bk, slices } => vec![
                ("TM", tm.into()),
                ("TN", tn.into()),
                ("HELD", tm.div_ceil(slices).into()),
                ("BM", bm.into()),
                ("BN", bn.into()),
                ("BK", bk.into()),
                ("SLICES", slices.into()),
            ],
            Self::Matrix { wg, m, along_t, along_n } => vec![
                ("WG", wg.into()),
                ("M", m.into()),
                ("FM", along_t.into()),
                ("FN", along_n.into()),
            ],
        }
    }

    /// Number of workgroups for `rows` × `outer` outputs.
    pub(super) fn groups(&self, rows: u32, outer: u32) -> u32 {
        match *self {
            Self::Naive { wg, .. } => rows * outer.div_ceil(wg),
            Self::Tiled { bm, bn, .. } => rows.div_ceil(bm) * outer.div_ceil(bn),
            Self::Texture { wg, lx, tm, tn, .. } => {
                rows.div_ceil(wg / lx * tm) * outer.div_ceil(tn * lx)
            }
            Self::Matrix { m, along_t, along_n, .. } => {
                rows.div_ceil(2 * along_t * m) * outer.div_ceil(2 * along_n * m)
            }
        }
    }

    /// Files for the generic imports of a product.
    pub(super) fn imports(&self) -> Vec<(&'static str, &'static str)> {
        match *self {
            Self::Texture { s, .. } => {
                vec![("product", "product_texture"), ("share", share(s))]
            }
            Self::Tiled { slices, .. } => {
                vec![("slices", if slices == 1 { "slices_one" } else { "slices_many" })]
            }
            Self::Naive { .. } | Self::Matrix { .. } => vec![],
        }
    }

    /// Layout of the weights.
    pub fn layout(&self) -> Layout {
        match *self {
            Self::Naive { layout, .. } => layout,
            Self::Tiled { .. } | Self::Matrix { .. } => Layout::Rows,
            Self::Texture { .. } => Layout::Texels,
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Naive { wg, .. } => write!(f, "{wg} alone"),
            Self::Tiled { tm, tn, bm, bn, bk, slices } => {
                write!(f, "{bm}×{bn}, {tm}×{tn} a lane, k {bk}")?;
                if slices > 1 { write!(f, " in {slices} slices") } else { Ok(()) }
            }
            Self::Texture { wg, s, lx, tm, tn } => {
                write!(f, "{tm}×{tn} a lane, {}×{} a workgroup", wg / lx * tm, lx * tn)?;
                if s > 1 { write!(f, ", {s} share") } else { Ok(()) }
            }
            Self::Matrix { m, along_t, along_n, .. } => {
                write!(f, "4 blocks of {along_t}×{along_n} matrices of {m}×{m}")
            }
        }
    }
}

impl Layout {
    /// Reorders \[N, K\] into this layout.
    pub fn arrange(self, w: TensorData<'_>, [n, k]: [u32; 2]) -> (Shape, TensorData<'_>) {
        assert_eq!(w.len(), n as usize * k as usize, "weights");
        let (shape, rows): (Shape, _) = match self {
            Self::Rows => return ([n, k].into(), w),
            Self::Panels => ([n, k].into(), PANEL),
            Self::Texels => ([n / 4, 4 * k].into(), 4),
        };
        (shape, reordered!(w, w => transposed(&w, rows, k as usize)))
    }
}

/// Transposes blocks of `rows` rows of `k` elements, the last maybe with fewer rows.
fn transposed<T: Pod + Send + Sync>(w: &[T], rows: usize, k: usize) -> Vec<T> {
    let mut out = vec![T::zeroed(); w.len()];
    let blocks = out.par_chunks_mut(rows * k).zip(w.par_chunks(rows * k));
    blocks.for_each(|(out, block)| {
        for (n, column) in out.chunks_exact_mut(block.len() / k).enumerate() {
            let elements = block.iter().skip(n).step_by(k);
            column.iter_mut().zip(elements).for_each(|(to, from)| *to = *from);
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrangements_by_hand() {
        let w: Vec<f32> = (0..16).map(|n| n as f32).collect(); // N = 8, K = 2
        let (shape, panel) = Layout::Panels.arrange(w.clone().into(), [8, 2]);
        let panel = panel.widened();
        assert_eq!((shape, &panel[..4]), ([8, 2].into(), &[0.0, 2.0, 4.0, 6.0][..]));
        let w65: Vec<f32> = (0..130).map(|n| n as f32).collect(); // N = 65, K = 2
        let (_, panels) = Layout::Panels.arrange(w65.into(), [65, 2]);
        let panels = panels.widened();
        assert_eq!((panels[63], panels[64], &panels[128..]), (126.0, 1.0, &[128.0, 129.0][..]));
        let (shape, texels) = Layout::Texels.arrange(w.clone().into(), [8, 2]);
        assert_eq!(shape, [2, 8].into());
        assert_eq!(texels.widened()[..8], [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        assert_eq!(Layout::Rows.arrange(w.clone().into(), [8, 2]).1.widened(), w);
    }
}
