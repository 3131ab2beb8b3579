//! Cases of `embed`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product, seeded::Role,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, Tile, embed},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Vocabulary of the English models.
const VOCABULARY: u32 = 30_528;

/// Rows of a vocabulary in `parts` parts, then LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct EmbedCase {
    /// T
    pub t: u32,
    /// D
    pub d: u32,
    /// V
    pub vocab: u32,
    /// Number of bindings for the vocabulary.
    pub parts: u32,
    /// Rows in bf16, not in the variant's own format.
    pub bf16: bool,
    /// No LayerNorm.
    pub plain: bool,
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::Embed,
    sample: || Box::new(case(37, 768, 300, 2)),
    hard: || {
        let sizes = [(1, 32, 5, 1), (37, 768, 300, 3), (513, 64, 1000, 7), (70_001, 32, 400, 1)];
        let plain = sizes.map(|(t, d, vocab, parts)| case(t, d, vocab, parts));
        let bf16 = [case(37, 1024, 300, 3), case(5, 36, 7, 1)];
        let bf16 = bf16.map(|case| EmbedCase { bf16: true, ..case });
        let rows = EmbedCase { plain: true, ..case(9, 20, 30, 2) };
        boxed(plain.into_iter().chain(bf16).chain([rows]))
    },
    random: |choices| {
        Box::new(EmbedCase {
            t: choices.integer(1..200),
            d: 4 * choices.integer(1..40),
            vocab: choices.integer(1..500),
            parts: choices.integer(1..4),
            bf16: choices.flag(),
            plain: choices.flag(),
        })
    },
    layer: |sizes| {
        let d = sizes.d;
        let shape = format!("D{d} V{VOCABULARY}");
        vec![LayerCase::new(shape, move |t| case(t, d, VOCABULARY, 1))]
    },
};

fn case(t: u32, d: u32, vocab: u32, parts: u32) -> EmbedCase {
    EmbedCase { t, d, vocab, parts, bf16: false, plain: false }
}

impl EmbedCase {
    /// Storage format of the rows.
    fn word(&self, variant: KernelVariant) -> Format {
        if self.bf16 { Format::BF16 } else { variant.table() }
    }
}

impl KernelCase for EmbedCase {
    fn kernel(&self) -> KernelId {
        KernelId::Embed
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.stream(), self.word(variant)]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { t, d, vocab, parts, bf16, plain } = *self;
        let ids = data.drawn_integers(t, vocab)?;
        let type_ids = data.drawn_integers(t, 2)?;
        let kinds = data.drawn(2 * d as usize, 0.04, 0.0);
        let kind = data.plain([2, d], &kinds)?;
        let gamma = data.vector(d, 0.2, 1.0)?;
        let beta = data.vector(d, 0.5, 0.0)?;
        let x = data.undefined([t, d], Role::Stream)?;
        let word = self.word(data.variant);
        let kernel =
            embed::kernel(embed::Spec { word, plain, ..embed::Spec::new(data.variant, d) });
        let role = if bf16 { Role::BrainTable } else { Role::Table };
        let step = vocab.div_ceil(parts);
        for first in (0..vocab).step_by(step as usize) {
            let rows = step.min(vocab - first);
            let word = data.shifted([rows, d], 0.05, 0.0, role)?;
            let args = embed::Args {
                ids: &ids,
                type_ids: &type_ids,
                word: &word,
                kind: &kind,
                gamma: &gamma,
                beta: &beta,
                x: &x,
            };
            embed::record(rec, &kernel, args, first, 1e-12);
        }
        Ok(x)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let td = product(&[self.t, self.d]);
        let moved = bytes(self.word(variant), td) + bytes(variant.stream(), 2 * td);
        Work { flops: 8.0 * td as f64, bytes: moved }
    }

    fn tolerance(&self, _: KernelVariant) -> Tolerance {
        Tolerance { atol: 5e-6, rtol: 1e-5 }
    }
}

impl fmt::Display for EmbedCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, d, vocab, parts, bf16, plain } = self;
        write!(f, "{} T{t} D{d} V{vocab} parts{parts}", self.kernel())?;
        f.write_str(if *plain { " plain" } else { "" })?;
        if *bf16 { f.write_str(" bf16") } else { Ok(()) }
    }
}
