//! Rotary position embedding of queries or keys (Su et al. 2021, arXiv:2104.09864, section 3.4).
//! Shaders: `shaders/rope.wgsl`, `shaders/texture/rope.wgsl`.

use super::{Dtype, HEAD_WIDTHS, KernelVariant, MOVE, Tier, elem, specialise};
use crate::recording::{Format, Kernel, KernelId, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// E, a multiple of 8
    pub e: u32,
    /// Storage format of `x` and `y`.
    pub x: Format,
}

impl Spec {
    /// The constants for heads of `e` elements.
    pub fn new(variant: impl Into<KernelVariant>, e: u32) -> Self {
        Self { e, x: variant.into().wide() }
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub tokens: u32,
    /// H
    pub heads: u32,
    /// First column of `x` in its rows, in vec4s.
    pub x_column: u32,
    /// Stride of the rows of `x`, in vec4s.
    pub x_step: u32,
}
abi!(Params { tokens, heads, x_column, x_step });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// Queries or keys, \[T, D\]; may be columns of a wider tensor.
    pub x: &'a Tensor,
    /// [`table`], \[P, E\]
    pub table: &'a Tensor,
    /// Position of each token in its sequence, less than P, \[T\], `u32`.
    pub positions: &'a Tensor,
    /// Output, \[T, D\].
    pub y: &'a Tensor,
}
bindings!(Args { x: Read, table: Read, positions: Read, y: Write });

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = if spec.x.texture() { source!("texture/rope.wgsl") } else { source!("rope.wgsl") };
    let imports = vec![("elem", elem(spec.x))];
    let constants = vec![("WG", WG.into()), ("E", spec.e.into())];
    let bindings = (BINDINGS, &[("x", spec.x), ("y", spec.x)][..]);
    specialise::<_, Params>(KernelId::Rope, file, bindings, spec, imports, constants)
}

/// Invocations per workgroup.
const WG: u32 = 64;

/// Programs of every head width, buffers and textures.
pub fn programs() -> Vec<Program> {
    let half = KernelVariant::new(Tier::Tiled, Dtype::F16);
    let variants = [Tier::Tiled.into(), Tier::Texture.into(), half];
    let specs = HEAD_WIDTHS.iter().flat_map(|&e| variants.map(|variant| Spec::new(variant, e)));
    specs.map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Cosines and then sines of the angles of `positions` positions, \[P, E\].
///
/// The angle of pair j at position p is p·θ^(-2j/E).  It is computed in f64 and rounded once: in
/// f32 an angle of position 8,191 would be off by up to 5e-4.
pub fn table(positions: u32, e: u32, theta: f64) -> Vec<f32> {
    let rates: Vec<f64> =
        (0..e / 2).map(|j| theta.powf(-2.0 * f64::from(j) / f64::from(e))).collect();
    let rows = (0..positions).flat_map(|position| {
        let angles = rates.iter().map(move |rate| f64::from(position) * rate);
        angles.clone().map(f64::cos).chain(angles.map(f64::sin))
    });
    rows.map(|x| x as f32).collect()
}

/// Records one dispatch, with one invocation per four pairs.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args) {
    let Spec { e, .. } = kernel.spec;
    let [tokens, d] = args.y.shape2();
    assert!(e.is_multiple_of(8) && d.is_multiple_of(e), "heads of {e} in rows of {d}");
    args.x.expect_columns([tokens, d]);
    args.positions.expect([tokens]);
    args.table.expect([args.table.shape2()[0], e]);
    let heads = d / e;
    let x_column = args.x.column / 4;
    let x_step = args.x.step / 4;
    let params = Params { tokens, heads, x_column, x_step };
    let flops = 2.0 * MOVE * f64::from(tokens) * f64::from(d);
    let groups = (u64::from(tokens) * u64::from(d / 8)).div_ceil(u64::from(WG));
    rec.dispatch(kernel, params, &args.list(), grid(groups as u32), flops);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_follow_the_formula() {
        let table = table(8192, 64, 20_000.0);
        assert_eq!(table[..64], [[1.0; 32], [0.0; 32]].concat());
        let last = &table[8191 * 64..];
        let slowest = 8191.0 * 20_000_f64.powf(-62.0 / 64.0);
        assert_eq!(last[0], 8191_f64.cos() as f32);
        assert_eq!([last[31], last[63]], [slowest.cos() as f32, slowest.sin() as f32]);
    }
}
