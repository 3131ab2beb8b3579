//! `y = x·Wᵀ + bias`.  Shaders: `shaders/linear.wgsl`, `shaders/naive/linear.wgsl`.

use super::{ELEM, Tier, specialise};
use crate::recording::{Const, Kernel, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spec {
    /// One output per invocation.
    Naive {
        /// Invocations per workgroup.
        wg: u32,
    },
    /// A tile of outputs per workgroup, 8 by 8 of them per invocation.
    Tiled {
        /// Rows of y per workgroup.
        bm: u32,
        /// Columns of y per workgroup.
        bn: u32,
        /// Inner elements staged at a time.
        bk: u32,
    },
}

impl Spec {
    /// The usual constants of a tier.
    pub fn new(tier: Tier) -> Self {
        match tier {
            Tier::Naive => Self::Naive { wg: 64 },
            Tier::Tiled => Self::Tiled { bm: 64, bn: 64, bk: 16 },
        }
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        match *self {
            Self::Naive { wg } => vec![("WG", wg.into())],
            Self::Tiled { bm, bn, bk } => vec![
                ("BM", bm.into()),
                ("BN", bn.into()),
                ("BK", bk.into()),
            ],
        }
    }

    /// Workgroups for `rows` × `outer` outputs.
    fn groups(&self, rows: u32, outer: u32) -> u32 {
        match *self {
            Self::Naive { wg } => rows * outer.div_ceil(wg),
            Self::Tiled { bm, bn, .. } => rows.div_ceil(bm) * outer.div_ceil(bn),
        }
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub rows: u32,
    /// N
    pub outer: u32,
    /// K
    pub inner: u32,
}
abi!(Params { rows, outer, inner });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T, K\]
    pub x: &'a Tensor,
    /// \[N, K\]
    pub w: &'a Tensor,
    /// \[N\]
    pub bias: &'a Tensor,
    /// \[T, N\], written
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, w: Read, bias: Read, y: Write });

/// Makes a Spec runnable.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = match spec {
        Spec::Naive { .. } => source!("naive/linear.wgsl"),
        Spec::Tiled { .. } => source!("linear.wgsl"),
    };
    specialise::<_, Params>("linear", file, ACCESS, spec, vec![ELEM], spec.constants())
}

/// Programs of every tier.
pub fn programs() -> Vec<Program> {
    Tier::ALL.iter().map(|&tier| (*kernel(Spec::new(tier)).program).clone()).collect()
}

/// Appends one dispatch.  K must be a multiple of 4.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let [t, k] = args.x.shape2();
    let [n, _] = args.w.shape2();
    assert!(k.is_multiple_of(4), "inner size {k} is not a multiple of 4");
    args.w.expect([n, k]);
    args.bias.expect([n]);
    args.y.expect([t, n]);
    let params = Params { rows: t, outer: n, inner: k };
    rec.dispatch(kernel, params, &args.list(), grid(kernel.spec.groups(t, n)));
}
