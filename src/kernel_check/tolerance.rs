//! Names of cases, and tolerances for comparison with the reference.

use super::{KernelCase, Tolerance};
use crate::{
    activation::Activation,
    kernels::{KernelVariant, Tier},
    recording::Format,
};
use std::fmt;

impl fmt::Display for KernelCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |lengths: &[u32]| lengths.iter().map(|&n| u64::from(n)).sum::<u64>();
        write!(f, "{} ", self.kernel())?;
        match self {
            Self::Embed { t, d, vocab, parts } => write!(f, "T{t} D{d} V{vocab} parts{parts}"),
            Self::Linear { t, n, k, activation, residual } => {
                write!(f, "T{t} N{n} K{k}{}", if *residual { " +r" } else { "" })?;
                if *activation == Activation::Identity {
                    Ok(())
                } else {
                    write!(f, " {activation:?}")
                }
            }
            Self::LinearGeglu { t, f: width, k, gate_first, activation } => {
                let half = if *gate_first { "first" } else { "second" };
                write!(f, "T{t} F{width} K{k} {half} {activation:?}")
            }
            Self::KeyNorm { lengths, query_only, heads, e } => {
                write!(f, "B{} T{} H{heads} E{e}", lengths.len(), sum(lengths))?;
                if *query_only > 0 { write!(f, " -{query_only} keys") } else { Ok(()) }
            }
            Self::Attention { lengths, query_only, heads, e, sharpness, skip_eps } => {
                write!(f, "B{} T{} H{heads} E{e} σ{sharpness}", lengths.len(), sum(lengths))?;
                f.write_str(if *skip_eps > 0.0 { "" } else { " dense" })?;
                if *query_only > 0 { write!(f, " -{query_only} keys") } else { Ok(()) }
            }
            Self::LayerNorm { t, d, residual, shift } => {
                write!(f, "T{t} D{d}{}", if *residual { " +r" } else { "" })?;
                if *shift != 0.0 { write!(f, " mean{shift}") } else { Ok(()) }
            }
            Self::Gather { t, d, rows } => write!(f, "T{t} D{d} n{}", rows.len()),
            Self::Pool { t, spans, d, dims, normalize } => {
                write!(f, "B{} T{t} D{d} dims{dims}", spans.len())?;
                f.write_str(if *normalize { " norm" } else { "" })
            }
        }
    }
}

impl KernelCase {
    /// Bounds for f32, from the number of terms in the longest sum of the case.
    ///
    /// Inputs are of order 1, so an f32 sum of n products has an error of about √n·2⁻²⁴ of the
    /// terms' size at random and n·2⁻²⁴ at worst.  The bounds are ten or more times the errors on
    /// lavapipe and SwiftShader, and a hundredth of those of the mildest mutation in
    /// `tools/mutants.py`.
    fn f32_tolerance(&self) -> Tolerance {
        match *self {
            Self::Linear { k, .. } => {
                Tolerance { atol: 2e-7 * (k as f32).sqrt() + 2e-6, rtol: 1e-5 }
            }
            // exp turns an absolute error of the score into a relative error of the weight
            Self::Attention { sharpness, .. } => {
                Tolerance { atol: 5e-6 * (1.0 + sharpness), rtol: 1e-5 }
            }
            Self::Embed { .. } => Tolerance { atol: 5e-6, rtol: 1e-5 },
            // the input's rounding error, at the size of its mean
            Self::LayerNorm { shift, .. } => {
                Tolerance { atol: 5e-6 + 1e-6 * shift.abs(), rtol: 1e-5 }
            }
            // an error of the gate, of order 2, is multiplied by an up of order 2 and its own slope
            Self::LinearGeglu { k, .. } => {
                Tolerance { atol: 2e-6 * (k as f32).sqrt() + 1e-5, rtol: 1e-5 }
            }
            Self::KeyNorm { .. } => Tolerance { atol: 1e-6, rtol: 1e-6 },
            Self::Pool { .. } => Tolerance { atol: 1e-6, rtol: 1e-5 },
            Self::Gather { .. } => Tolerance { atol: 0.0, rtol: 0.0 },
        }
    }

    /// Bounds for a variant.  f16 inputs are the same for the reference, so only the rounding of an
    /// f16 output is added: half a unit in the last place is 2⁻¹¹ of the value, and at least 2⁻²⁵.
    ///
    /// The matrix tier rounds both inputs, the reference does not: 2⁻¹⁰ of each term at worst, and
    /// twice for a gate and its factor, both of order 2; terms of 4 may cancel.
    pub fn tolerance(&self, variant: impl Into<KernelVariant>) -> Tolerance {
        let variant = variant.into();
        let Tolerance { atol, rtol } = self.f32_tolerance();
        let (more, part) = match (self, variant.tier) {
            (Self::Linear { .. }, Tier::Matrix { .. }) => (4.0, 1.0),
            (Self::LinearGeglu { .. }, Tier::Matrix { .. }) => (16.0, 2.0),
            _ => (0.0, 0.0),
        };
        let atol = atol + more / 1024.0;
        let rtol = rtol + part / 1024.0;
        let output = match self {
            Self::Embed { .. } | Self::KeyNorm { .. } | Self::Pool { .. } => Format::F32,
            Self::Gather { .. } => Format::F32,
            Self::Linear { residual: true, .. } => Format::F32,
            _ => variant.wide(),
        };
        let half = if output.half() { 1.0 } else { 0.0 };
        Tolerance { atol: atol + half / (1 << 24) as f32, rtol: rtol + half / 2048.0 }
    }
}
