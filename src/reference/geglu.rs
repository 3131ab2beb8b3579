use crate::activation::Activation;

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
    fn by_hand() {
        let mut h = [0.0; 2];
        geglu(&[-1.0, 2.0, 10.0, 20.0], Activation::Relu, true, &mut h, 2);
        assert_eq!(h, [0.0, 40.0]);
        geglu(&[-1.0, 2.0, 10.0, 20.0], Activation::Relu, false, &mut h, 2);
        assert_eq!(h, [-10.0, 40.0]);
    }
}
