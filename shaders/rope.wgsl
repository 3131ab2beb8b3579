// rope: rotary position embedding of queries or keys.
//
//     y_tj       = x_tj * cos_pj - x_t(j+E/2) * sin_pj        p = positions_t, for the first half of a head, j < E/2
//     y_t(j+E/2) = x_t(j+E/2) * cos_pj + x_tj * sin_pj
//
// Su et al. 2021, arXiv:2104.09864, with the pairs (j, j + E/2).
//
// Shapes      x, y: [T, D], D = H·E; x may be columns of a wider tensor   table: [P, E]   positions: [T]
// Work        one invocation per four pairs of a token and head
// Traffic     reads 2*T*D, writes T*D elements; memory-bound
// Numerics    f32; the angles' cosines and sines come from f64
// Host   src/kernels/rope.rs        Reference  src/reference/rope.rs
// Check  src/kernel_check/rope.rs   Bench      benches/kernels.rs "rope"

#import elem

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // invocations per workgroup
const E: u32 = 64u;  // head width

const HALF4: u32 = E / 8u; // vec4s of half a head
const_assert E % 8u == 0u;

struct Params {
    tokens: u32,   // T
    heads: u32,    // H
    x_column: u32, // first column of x, in vec4s
    x_step: u32,   // row stride of x, in vec4s
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem4>;          // [T, D]
@group(0) @binding(2) var<storage, read> table: array<vec4<f32>>;  // [P, E]: cosines, sines
@group(0) @binding(3) var<storage, read> positions: array<u32>;    // [T]
@group(0) @binding(4) var<storage, read_write> y: array<Elem4>;    // [T, D]

@compute @workgroup_size(WG)
fn rope(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let n = (wg.y * grid.x + wg.x) * WG + lid;
    let t = n / (params.heads * HALF4);
    if t >= params.tokens { return; }
    let head = n / HALF4 % params.heads;
    let j = n % HALF4;
    let angle = positions[t] * (E / 4u) + j;
    let cosine = table[angle];
    let sine = table[angle + HALF4];
    let column = head * (E / 4u) + j;
    let source = t * params.x_step + params.x_column + column;
    let a = load4(x[source]);
    let b = load4(x[source + HALF4]);
    let to = t * params.heads * (E / 4u) + column;
    y[to] = store4(a * cosine - b * sine);
    y[to + HALF4] = store4(b * cosine + a * sine);
}
