//! `softmax(q·kᵀ/√E - m_h·|i - j|)·v`.  Shaders: `shaders/attention.wgsl`,
//! `shaders/naive/attention.wgsl`.

use super::{ELEM, HEAD_WIDTHS, Tier, specialise};
use crate::recording::{Const, Kernel, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// E
    pub e: u32,
    /// Keys staged at a time; 0 for the naive tier, which stages none.
    pub bk: u32,
}

impl Spec {
    /// The usual constants for heads of `e` elements: K and V tiles fill at most 16 KiB together.
    pub fn new(tier: Tier, e: u32) -> Self {
        match tier {
            Tier::Naive => Self { e, bk: 0 },
            Tier::Tiled => Self { e, bk: (2048 / e).min(32) },
        }
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        let mut constants = vec![("WG", TILE.into()), ("E", self.e.into())];
        if self.bk > 0 {
            constants.push(("BK", self.bk.into()));
        }
        constants
    }
}

/// Queries per workgroup, hence per entry of the tile list.
pub const TILE: u32 = 64;

/// The widest head whose tiles fit into 16 KiB and whose query and output fit into registers.
pub const MAX_HEAD_WIDTH: u32 = 128;

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Entries in the tile list.
    pub tiles: u32,
    /// H
    pub heads: u32,
    /// Factor of q·k: 1/√E.
    pub scale: f32,
}
abi!(Params { tiles, heads, scale });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, D\]
    pub q: &'a Tensor,
    /// \[T, D\]
    pub k: &'a Tensor,
    /// \[T, D\]
    pub v: &'a Tensor,
    /// \[H\]
    pub slopes: &'a Tensor,
    /// \[B+1\], `u32`: first token of each sequence, and T
    pub cu_seqlens: &'a Tensor,
    /// \[n, 2\], `u32`: sequence and first query of each tile of [`TILE`] queries
    pub tiles: &'a Tensor,
    /// \[T, D\], written
    pub context: &'a Tensor,
}
bindings!(Args {
    q: Read,
    k: Read,
    v: Read,
    slopes: Read,
    cu_seqlens: Read,
    tiles: Read,
    context: Write
});

/// Makes a Spec runnable.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = match spec.bk {
        0 => source!("naive/attention.wgsl"),
        _ => source!("attention.wgsl"),
    };
    specialise::<_, Params>("attention", file, ACCESS, spec, vec![ELEM], spec.constants())
}

/// Programs of every tier and head width.
pub fn programs() -> Vec<Program> {
    let specs = HEAD_WIDTHS.iter().flat_map(|&e| Tier::ALL.map(|tier| Spec::new(tier, e)));
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Appends one dispatch.  One workgroup per tile and head.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let [t, d] = args.q.shape2();
    let heads = args.slopes.shape1();
    assert_eq!(d, heads * kernel.spec.e, "width");
    args.k.expect([t, d]);
    args.v.expect([t, d]);
    args.context.expect([t, d]);
    let [tiles, _] = args.tiles.shape2();
    args.tiles.expect([tiles, 2]);
    let scale = 1.0 / (kernel.spec.e as f32).sqrt();
    let [x, y, _] = grid(tiles);
    rec.dispatch(kernel, Params { tiles, heads, scale }, &args.list(), [x, y, heads]);
}
