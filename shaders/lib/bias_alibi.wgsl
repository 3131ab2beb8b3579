// bias: attention with linear biases, symmetric for an encoder (Press et al. 2022, arXiv:2108.12409;
// Günther et al. 2023, arXiv:2310.19923).  Added to the scaled score; never stored.
//
// The importing kernel declares `biases`: [H], a slope for each head.

fn slope_of(head: u32) -> f32 {
    return biases[head];
}

// Bias of query i and key j of a head.
fn bias(slope: f32, head: u32, i: u32, j: u32) -> f32 {
    return -slope * f32(max(i, j) - min(i, j));
}

// Biases of query i and four keys.
fn bias4(slope: f32, head: u32, i: u32, keys: vec4<u32>) -> vec4<f32> {
    return -slope * abs(vec4<f32>(vec4<i32>(keys) - i32(i)));
}
