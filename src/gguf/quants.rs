//! Element types of ggml: real numbers, and blocks of small integers with their scales.
//!
//! The layouts are those of `ggml-common.h` and `ggml-quants.c`; every value is computed in f32.

use crate::elements::f16;
use std::fmt;

/// Elements of a block of the K types.
const K: usize = 256;

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GgmlType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl GgmlType {
    /// Type of a number in the file.
    ///
    /// # Errors
    /// Name or number of a type that is not computed here.
    pub fn of(number: u32) -> Result<Self, String> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            other => return Err(name_of(other)),
        })
    }

    /// Elements and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (K, 144),
            Self::Q5K => (K, 176),
            Self::Q6K => (K, 210),
        }
    }

    /// Values of whole blocks of a quantised type; none of a type of real numbers.
    pub fn widened(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let block: fn(&[u8], &mut [f32]) = match self {
            Self::F32 | Self::F16 | Self::Bf16 => return None,
            Self::Q4_0 => q4_0,
            Self::Q4_1 => q4_1,
            Self::Q5_0 => q5_0,
            Self::Q5_1 => q5_1,
            Self::Q8_0 => q8_0,
            Self::Q4K => q4_k,
            Self::Q5K => q5_k,
            Self::Q6K => q6_k,
        };
        let (elements, size) = self.block();
        let mut values = vec![0.0; bytes.len() / size * elements];
        for (bytes, values) in bytes.chunks_exact(size).zip(values.chunks_exact_mut(elements)) {
            block(bytes, values);
        }
        Some(values)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        })
    }
}

/// Name of a type that is not computed here.
fn name_of(number: u32) -> String {
    const NAMES: [(u32, &str); 14] = [
        (9, "Q8_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (15, "Q8_K"),
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (29, "IQ1_M"),
        (39, "MXFP4"),
    ];
    let known = NAMES.iter().find(|(n, _)| *n == number);
    known.map_or_else(|| format!("type {number}"), |(_, name)| (*name).to_owned())
}

/// A half-precision scale at an offset.
fn scale(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Lower half-bytes first, then the upper ones, as signed numbers of 16.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

/// Fifth bit of each of 32 elements.
fn fifth(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    (0..32).map(|n| (bytes[n / 8] >> (n % 8) & 1) << 4)
}

fn q4_0(bytes: &[u8], values: &mut [f32]) {
    let d = scale(bytes, 0);
    for (value, q) in values.iter_mut().zip(nibbles(&bytes[2..])) {
        *value = d * (f32::from(q) - 8.0);
    }
}

fn q4_1(bytes: &[u8], values: &mut [f32]) {
    let [d, m] = [0, 2].map(|at| scale(bytes, at));
    for (value, q) in values.iter_mut().zip(nibbles(&bytes[4..])) {
        *value = d * f32::from(q) + m;
    }
}

fn q5_0(bytes: &[u8], values: &mut [f32]) {
    let d = scale(bytes, 0);
    let q = nibbles(&bytes[6..]).zip(fifth(&bytes[2..6]));
    for (value, (low, high)) in values.iter_mut().zip(q) {
        *value = d * (f32::from(low | high) - 16.0);
    }
}

fn q5_1(bytes: &[u8], values: &mut [f32]) {
    let [d, m] = [0, 2].map(|at| scale(bytes, at));
    let q = nibbles(&bytes[8..]).zip(fifth(&bytes[4..8]));
    for (value, (low, high)) in values.iter_mut().zip(q) {
        *value = d * f32::from(low | high) + m;
    }
}

fn q8_0(bytes: &[u8], values: &mut [f32]) {
    let d = scale(bytes, 0);
    for (value, q) in values.iter_mut().zip(&bytes[2..]) {
        *value = d * f32::from(*q as i8);
    }
}

/// Scale and minimum of one of the eight parts of a block, six bits each.
fn part(scales: &[u8], n: usize) -> [f32; 2] {
    let bits = if n < 4 {
        [scales[n] & 63, scales[n + 4] & 63]
    } else {
        let [low, high] = [scales[n + 4] & 15, scales[n + 4] >> 4];
        [low | scales[n - 4] >> 6 << 4, high | scales[n] >> 6 << 4]
    };
    bits.map(f32::from)
}

fn q4_k(bytes: &[u8], values: &mut [f32]) {
    let [d, least] = [0, 2].map(|at| scale(bytes, at));
    let (scales, quants) = bytes[4..].split_at(12);
    for (n, values) in values.chunks_exact_mut(32).enumerate() {
        let [s, m] = part(scales, n);
        let quants = &quants[n / 2 * 32..][..32];
        for (value, q) in values.iter_mut().zip(quants) {
            *value = d * s * f32::from(q >> (n % 2 * 4) & 15) - least * m;
        }
    }
}

fn q5_k(bytes: &[u8], values: &mut [f32]) {
    let [d, least] = [0, 2].map(|at| scale(bytes, at));
    let (scales, rest) = bytes[4..].split_at(12);
    let (high, quants) = rest.split_at(32);
    for (n, values) in values.chunks_exact_mut(32).enumerate() {
        let [s, m] = part(scales, n);
        let quants = quants[n / 2 * 32..][..32].iter().zip(high);
        for (value, (q, high)) in values.iter_mut().zip(quants) {
            let q = q >> (n % 2 * 4) & 15 | (high >> n & 1) << 4;
            *value = d * s * f32::from(q) - least * m;
        }
    }
}

fn q6_k(bytes: &[u8], values: &mut [f32]) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, rest) = rest.split_at(16);
    let d = scale(rest, 0);
    for (n, values) in values.chunks_exact_mut(32).enumerate() {
        // Four runs of 32 share the bytes of each half.
        let (half, run) = (n / 4, n % 4);
        let low = &low[half * 64 + run % 2 * 32..][..32];
        let high = &high[half * 32..][..32];
        for (l, value) in values.iter_mut().enumerate() {
            let q = low[l] >> (run / 2 * 4) & 15 | (high[l] >> (run * 2) & 3) << 4;
            let s = scales[half * 8 + run * 2 + l / 16] as i8;
            *value = d * f32::from(s) * (f32::from(q) - 32.0);
        }
    }
}
