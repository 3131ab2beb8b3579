// alibi: attention with linear biases, symmetric for an encoder (Press et al. 2022, arXiv:2108.12409;
// Günther et al. 2023, arXiv:2310.19923).  Added to the scaled score; never stored.

fn alibi(slope: f32, i: u32, j: u32) -> f32 {
    return -slope * f32(max(i, j) - min(i, j));
}
