//! Sum of word row and token-type row, then LayerNorm or nothing.  Shader: `shaders/embed.wgsl`.

use super::{Dtype, KernelVariant, MOVE, Tier, WIDTHS, row_workgroup, specialise};
use crate::recording::{Const, Format, Kernel, KernelId, Program, Recording, Tensor, grid};
use bytemuck::{Pod, Zeroable};

/// Constants fixed when the pipeline is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Invocations per workgroup.
    pub wg: u32,
    /// D
    pub d: u32,
    /// Storage format of `word`.
    pub word: Format,
    /// Storage format of `x`.
    pub x: Format,
    /// No LayerNorm.
    pub plain: bool,
}

impl Spec {
    /// Default constants for rows of `d` elements.
    pub fn new(variant: impl Into<KernelVariant>, d: u32) -> Self {
        let variant = variant.into();
        Self { wg: row_workgroup(d), d, word: variant.table(), x: variant.stream(), plain: false }
    }

    fn constants(&self) -> Vec<(&'static str, Const)> {
        vec![("WG", self.wg.into()), ("D", self.d.into()), ("PLAIN", self.plain.into())]
    }
}

/// Values fixed per dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// T
    pub tokens: u32,
    /// Vocabulary row in `word[0]`.
    pub first: u32,
    /// Number of vocabulary rows in `word`.
    pub rows: u32,
    /// Epsilon, added to the variance.
    pub eps: f32,
}
abi!(Params { tokens, first, rows, eps });

/// Buffers, in binding order.
pub struct Args<'a> {
    /// \[T\], `u32`
    pub ids: &'a Tensor,
    /// \[T\], `u32`
    pub type_ids: &'a Tensor,
    /// Vocabulary, or the part of it that starts at row `first`, \[rows, D\].
    pub word: &'a Tensor,
    /// \[types, D\]
    pub kind: &'a Tensor,
    /// \[D\]; not read without LayerNorm, like `beta`.
    pub gamma: &'a Tensor,
    /// \[D\]
    pub beta: &'a Tensor,
    /// Output, \[T, D\], written for tokens whose id is in the part.
    pub x: &'a Tensor,
}
bindings!(Args {
    ids: Read,
    type_ids: Read,
    word: Read,
    kind: Read,
    gamma: Read,
    beta: Read,
    x: Write
});

/// Creates a kernel from a Spec.
pub fn kernel(spec: Spec) -> Kernel<Spec> {
    let file = if spec.x.texture() { source!("texture/embed.wgsl") } else { source!("embed.wgsl") };
    let formats = [("word", spec.word), ("x", spec.x)];
    let bindings = (BINDINGS, &formats[..]);
    let constants = spec.constants();
    specialise::<_, Params>(KernelId::Embed, file, bindings, spec, vec![], constants)
}

/// Programs of every width, buffers and textures, f32 and f16.
pub fn programs() -> Vec<Program> {
    let specs = [Tier::Tiled, Tier::Texture].into_iter().flat_map(|tier| {
        let half = KernelVariant::new(tier, Dtype::F16).table();
        [Format::F32, half, Format::BF16]
            .into_iter()
            .flat_map(move |word| WIDTHS.map(|d| Spec { word, ..Spec::new(tier, d) }))
    });
    // T5's, whose widths are others'.
    let plain =
        [Tier::Tiled, Tier::Texture].map(|tier| Spec { plain: true, ..Spec::new(tier, 768) });
    specs.chain(plain).map(|spec| (*kernel(spec).program).clone()).collect()
}

/// Records one dispatch for one part of the vocabulary, with one workgroup per token.
pub fn record(rec: &mut Recording, kernel: &Kernel<Spec>, args: Args, first: u32, eps: f32) {
    let d = kernel.spec.d;
    let tokens = args.ids.shape1();
    args.type_ids.expect([tokens]);
    let [rows, _] = args.word.shape2();
    args.word.expect([rows, d]);
    args.kind.expect([args.kind.shape2()[0], d]);
    args.gamma.expect([d]);
    args.beta.expect([d]);
    args.x.expect([tokens, d]);
    let params = Params { tokens, first, rows, eps };
    let flops = 2.0 * MOVE * f64::from(tokens) * f64::from(d);
    rec.dispatch(kernel, params, &args.list(), grid(tokens), flops);
}
