//! Conversion from f16 to f32 by a processor instruction: exact, subnormal numbers included.

#![allow(unsafe_code, reason = "an instruction that not every processor has")]

use crate::elements::{TensorData, f16};

/// True if this processor has the instruction: F16C of x86, since 2012.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx")
        && std::arch::is_x86_feature_detected!("f16c");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Converts every element to f32.
pub fn widen(from: &[f16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "elements");
    #[cfg(target_arch = "x86_64")]
    if available() {
        // SAFETY: this processor has AVX and F16C.
        unsafe { f16c(from, to) }
        return;
    }
    TensorData::F16(from.into()).read(0, to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
fn f16c(from: &[f16], to: &mut [f32]) {
    let (from, from_rest) = from.as_chunks::<8>();
    let (to, to_rest) = to.as_chunks_mut::<8>();
    for (from, to) in from.iter().zip(to) {
        *to = bytemuck::cast(std::arch::x86_64::_mm256_cvtph_ps(bytemuck::cast(*from)));
    }
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = from.to_f32());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_the_same() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite()).collect();
        for numbers in [&all[..], &all[3..1029]] {
            let mut wide = vec![0.0; numbers.len()];
            widen(numbers, &mut wide);
            assert!(numbers.iter().zip(&wide).all(|(a, b)| a.to_f32().to_bits() == b.to_bits()));
        }
    }
}
