/// Activation function of a product: of the gated half of an MLP, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x`
    Identity,
    /// `x·Φ(x)` with the error function, not its tanh approximation.
    Gelu,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// Value at `x`.
    pub fn of(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            // erfc, not 1 + erf: the latter cancels for x far below 0
            Self::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            Self::Relu => x.max(0.0),
        }
    }
}

/// `h = activation(gate) ⊙ up`: the second half of
/// [`linear_geglu`](super::linear_geglu()).
///
/// gate_up: \[T, 2F\], the gate first or second; h: \[T, F\].
pub fn geglu(gate_up: &[f32], activation: Activation, gate_first: bool, h: &mut [f32], f: usize) {
    for (row, h) in gate_up.chunks_exact(2 * f).zip(h.chunks_exact_mut(f)) {
        let (first, second) = row.split_at(f);
        let (gate, up) = if gate_first { (first, second) } else { (second, first) };
        for ((&g, &u), h) in gate.iter().zip(up).zip(h) {
            *h = (activation.of(f64::from(g)) * f64::from(u)) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_the_exact_one() {
        // 0.5·x·(1 + erf(x/√2)), to the digits of a table; the tanh form gives -0.00363 at -3
        for (x, y) in [(0.0, 0.0), (1.0, 0.841_344_746), (-1.0, -0.158_655_254)] {
            assert!((Activation::Gelu.of(x) - y).abs() < 1e-9, "{x}");
        }
        assert!((Activation::Gelu.of(-3.0) + 0.004_049_694).abs() < 1e-9);
    }

    #[test]
    fn by_hand() {
        let mut h = [0.0; 2];
        geglu(&[-1.0, 2.0, 10.0, 20.0], Activation::Relu, true, &mut h, 2);
        assert_eq!(h, [0.0, 40.0]);
        geglu(&[-1.0, 2.0, 10.0, 20.0], Activation::Relu, false, &mut h, 2);
        assert_eq!(h, [-10.0, 40.0]);
    }
}
