// bias: a number for each head and distance of the key from the query, up to `REACH` on either side; beyond, that at
// REACH.  T5's buckets (Raffel et al. 2020, arXiv:1910.10683, section 2.1) as the host has written them out.
//
// The importing kernel declares `biases`: [H, 2·REACH + 1], and `const REACH`.

const BIASES: u32 = 2u * REACH + 1u;

// No key is skipped.
fn slope_of(head: u32) -> f32 {
    return 0.0;
}

// Bias of query i and key j of a head.
fn bias(slope: f32, head: u32, i: u32, j: u32) -> f32 {
    let place = clamp(i32(j) - i32(i), -i32(REACH), i32(REACH)) + i32(REACH);
    return biases[head * BIASES + u32(place)];
}

// Biases of query i and four keys.
fn bias4(slope: f32, head: u32, i: u32, keys: vec4<u32>) -> vec4<f32> {
    return vec4(
        bias(slope, head, i, keys.x), bias(slope, head, i, keys.y),
        bias(slope, head, i, keys.z), bias(slope, head, i, keys.w),
    );
}
