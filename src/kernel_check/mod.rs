//! Single-kernel checks: a case of a given shape on seeded data, recorded on any engine.
//!
//! One file per kernel, of its name: its case, and the cases that tests, `jinabert doctor` and the
//! benchmarks use.

mod attention;
mod choices;
mod clock;
mod compare;
mod embed;
mod gather;
mod key_norm;
mod layer_norm;
mod linear;
mod linear_geglu;
mod lora;
mod pool;
pub mod roof;
mod rope;
mod seeded;

use crate::{
    error::Error,
    kernels::{KernelVariant, Tier, Tile},
    recording::{Caps, Engine, Format, KernelId, Recording, Tensor},
};
pub use attention::AttentionCase;
pub use choices::Choices;
pub use clock::Clock;
pub use compare::{Comparison, Tolerance, compare};
pub use embed::EmbedCase;
pub use gather::GatherCase;
pub use key_norm::KeyNormCase;
pub use layer_norm::LayerNormCase;
pub use linear::LinearCase;
pub use linear_geglu::LinearGegluCase;
pub use lora::LoraCase;
pub use pool::PoolCase;
pub use rope::RopeCase;
pub use seeded::{Seeded, UNWRITTEN};
use std::fmt;

/// Cases of all kernels, in the order of [`kernels::ALL`](crate::kernels::ALL).
pub const ALL: &[Suite] = &[
    embed::SUITE,
    linear::SUITE,
    linear_geglu::SUITE,
    lora::SUITE,
    rope::SUITE,
    key_norm::SUITE,
    attention::SUITE,
    layer_norm::SUITE,
    pool::SUITE,
    gather::SUITE,
];

/// Cases of one kernel.
pub struct Suite {
    /// The kernel.
    pub kernel: KernelId,
    /// Small case at the width of a base model, for a quick check of a device.
    pub sample: fn() -> Box<dyn KernelCase>,
    /// Hard cases: one row, sizes next to every tile edge, more rows than one grid dimension holds.
    pub hard: fn() -> Vec<Box<dyn KernelCase>>,
    /// Random case.
    pub random: fn(&mut Choices) -> Box<dyn KernelCase>,
    /// Cases of a model of given sizes, for benchmarks.
    pub layer: fn(LayerSizes) -> Vec<LayerCase>,
}

/// Sizes of a model's layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSizes {
    /// D
    pub d: u32,
    /// H
    pub heads: u32,
    /// F
    pub f: u32,
}

/// Case of a model for any number of tokens.
pub struct LayerCase {
    /// Sizes, without the number of tokens.
    pub shape: String,
    /// Case for a number of tokens.
    pub case: Box<dyn Fn(u32) -> Box<dyn KernelCase>>,
}

impl LayerCase {
    fn new<C: KernelCase + 'static>(shape: String, case: impl Fn(u32) -> C + 'static) -> Self {
        Self { shape, case: Box::new(move |t| Box::new(case(t))) }
    }
}

/// A case recorded on an engine.
pub struct Recorded {
    /// Recording to run.
    pub recording: Recording,
    /// Result of the recording.
    pub output: Tensor,
}

/// Minimum cost of a case.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Floating-point operations; a multiply-add is two.
    pub flops: f64,
    /// Bytes that must be read or written, each counted once.
    pub bytes: f64,
}

/// One dispatch of one kernel (one per part, for `embed`) with given sizes.  Its
/// [`Display`](fmt::Display) names the kernel and the sizes.
pub trait KernelCase: fmt::Debug + fmt::Display {
    /// The kernel.
    fn kernel(&self) -> KernelId;

    /// Tier whose kernel a tier uses; `None` if all tiers of a device with the same storage formats
    /// use one kernel.
    fn tier(&self, _tier: Tier) -> Option<Tier> {
        None
    }

    /// Storage formats of the tensors that determine the kernel's code.
    fn formats(&self, variant: KernelVariant) -> [Format; 2];

    /// Tiles that the kernel of a variant may have, the default last: more than one only for
    /// products.
    fn tiles(&self, variant: KernelVariant) -> Vec<Tile> {
        vec![Tile::new(variant.tier)]
    }

    /// Uploads seeded inputs and records the dispatch; returns the output.
    ///
    /// # Errors
    /// Errors of [`Engine::upload`].
    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, tile: Tile)
    -> Result<Tensor, Error>;

    /// Minimum work for the case, with tensors stored as in a variant.
    fn work(&self, variant: KernelVariant) -> Work;

    /// Allowed difference from the reference.
    ///
    /// Inputs are of order 1, so an f32 sum of n products has an error of about √n·2⁻²⁴ of the
    /// terms' size at random and n·2⁻²⁴ at worst.  The bounds are ten or more times the errors on
    /// lavapipe and SwiftShader, and a hundredth of those of the mildest mutation in
    /// `tools/mutants.py`.  f16 inputs are the same for the reference, so only the rounding of an
    /// f16 output is added.
    fn tolerance(&self, variant: KernelVariant) -> Tolerance;

    /// Variants of a device with different kernels for this case: for products and attention
    /// every tier, for the others one per storage format of their tensors.
    fn variants(&self, caps: &Caps) -> Vec<KernelVariant> {
        let own = |variant: KernelVariant| {
            let alone = caps.cpu && variant.tier.format() == Format::F32;
            let tier = self.tier(variant.tier).or(alone.then_some(variant.tier));
            (tier, self.formats(variant))
        };
        let all = KernelVariant::all(caps);
        let new = |n: &usize| all[..*n].iter().all(|&other| own(other) != own(all[*n]));
        (0..all.len()).filter(new).map(|n| all[n]).collect()
    }

    /// Uploads seeded inputs and records the dispatch, with the default tile.
    ///
    /// # Errors
    /// Errors of [`Engine::upload`].
    fn record(
        &self,
        engine: &mut dyn Engine,
        variant: KernelVariant,
        seed: u64,
    ) -> Result<Recorded, Error> {
        self.record_tiled(engine, variant, Tile::new(variant.tier), seed)
    }

    /// As [`KernelCase::record`], with a given tile of the variant's tier for a product.
    ///
    /// # Errors
    /// Errors of [`Engine::upload`].
    fn record_tiled(
        &self,
        engine: &mut dyn Engine,
        variant: KernelVariant,
        tile: Tile,
        seed: u64,
    ) -> Result<Recorded, Error> {
        assert_eq!(tile.layout(), Tile::new(variant.tier).layout(), "a tile of another tier");
        let mut data = Seeded::new(engine, variant, seed);
        let mut recording = Recording::new();
        let output = self.dispatch(&mut recording, &mut data, tile)?;
        Ok(Recorded { recording, output })
    }

    /// Runs the case on `engine` and on the CPU reference, and compares.
    ///
    /// # Errors
    /// Errors of the engine.
    fn check(
        &self,
        engine: &mut dyn Engine,
        variant: KernelVariant,
        seed: u64,
    ) -> Result<Comparison, Error> {
        self.check_tiled(engine, variant, Tile::new(variant.tier), seed)
    }

    /// As [`KernelCase::check`], with a given tile for a product.
    ///
    /// # Errors
    /// Errors of the engine.
    fn check_tiled(
        &self,
        engine: &mut dyn Engine,
        variant: KernelVariant,
        tile: Tile,
        seed: u64,
    ) -> Result<Comparison, Error> {
        let mut reference = crate::cpu::Engine::new(Tier::Reference);
        let recorded =
            self.record(&mut reference, KernelVariant { tier: Tier::Reference, ..variant }, seed)?;
        let expected = reference.run(&recorded.recording, &recorded.output)?;
        let recorded = self.record_tiled(engine, variant, tile, seed)?;
        let actual = engine.run(&recorded.recording, &recorded.output)?;
        Ok(compare(&actual, &expected, self.tolerance(variant)))
    }
}

/// Boxes some cases of a kernel.
fn boxed<C: KernelCase + 'static>(cases: impl IntoIterator<Item = C>) -> Vec<Box<dyn KernelCase>> {
    cases.into_iter().map(|case| Box::new(case) as Box<dyn KernelCase>).collect()
}

/// Tiles that a product's kernel may have, the default last.
fn product_tiles(variant: KernelVariant) -> Vec<Tile> {
    Tile::by_rows(variant.tier).into_iter().map(|(_, tile)| tile).collect()
}

/// Bytes of a tensor.
fn bytes(format: Format, elements: u64) -> f64 {
    f64::from(format.bytes()) * elements as f64
}

fn product(sizes: &[u32]) -> u64 {
    sizes.iter().map(|&n| u64::from(n)).product()
}

/// First token of each sequence, and the total.
fn offsets(lengths: &[u32]) -> Vec<u32> {
    let mut total = 0;
    let ends = lengths.iter().map(|n| {
        total += n;
        total
    });
    std::iter::once(0).chain(ends).collect()
}

/// Spans of sequences laid end to end.
pub fn sequences(lengths: &[u32]) -> Vec<[u32; 2]> {
    offsets(lengths).windows(2).map(|range| [range[0], range[1]]).collect()
}

/// Lengths of sequences of `length` tokens, and of one with the rest.
fn split(t: u32, length: u32) -> Vec<u32> {
    let whole = std::iter::repeat_n(length, (t / length) as usize);
    whole.chain(Some(t % length).filter(|&rest| rest > 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_cases_named_after_it() {
        let sizes = LayerSizes { d: 64, heads: 4, f: 128 };
        let kernels = crate::kernels::ALL;
        assert_eq!(ALL.len(), kernels.len());
        for (suite, interface) in ALL.iter().zip(kernels) {
            assert_eq!(suite.kernel, interface.kernel);
            let mut cases = (suite.hard)();
            cases.push((suite.sample)());
            cases.push((suite.random)(&mut Choices::new(&[7; 100])));
            cases.extend((suite.layer)(sizes).iter().map(|layer| (layer.case)(64)));
            for case in cases {
                assert_eq!(case.kernel(), suite.kernel);
                assert!(case.to_string().starts_with(&format!("{} ", suite.kernel)), "{case}");
            }
        }
    }

    #[test]
    fn lengths_of_sequences_add_up() {
        assert_eq!(split(300, 128), [128, 128, 44]);
        assert_eq!(split(16, 128), [16]);
        assert_eq!(split(256, 128), [128, 128]);
    }
}
