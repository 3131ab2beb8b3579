// linear: y = act(x·Wᵀ + bias), or y = act(x·Wᵀ + bias + r), matrices in textures, tiles in registers only.
//
// Shapes      x: [T, K]   w: [N, K]   bias: [N]   r, y: [T, N]
// Layout      a matrix is a texture of four elements a texel in pages (lib/page.wgsl); texel (k, n) of w is column k of
//             rows 4n to 4n+3 of W
// Work        invocation = TM rows by TN columns of y; the S lanes of a subgroup share the columns of W
// Memory      no workgroup memory, no barrier; TM·TN sums in registers
// Numerics    f32 accumulate in fixed order of k: a row's result does not depend on its neighbours
// Host   src/kernels/linear.rs        Reference  src/reference/linear.rs
// Check  src/kernel_check/linear.rs   Bench      benches/kernels.rs "linear"

#import activation
#import page

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u;          // invocations per workgroup
const S: u32 = 1u;            // lanes that share loads
const LX: u32 = 8u;           // groups of S lanes along N
const TM: u32 = 8u;           // rows of y per invocation
const TN: u32 = 8u;           // columns of y per invocation
const RESIDUAL: bool = false; // whether r is added

struct Params {
    first: u32, // first row of this dispatch
    rows: u32,  // end of its rows, exclusive, at most T
    outer: u32, // N
    inner: u32, // K
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;                         // [T, K]
@group(0) @binding(2) var w: texture_2d<f32>;                         // [N, K]
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;      // [N]
@group(0) @binding(4) var r: texture_2d<f32>;                         // [T, N]
@group(0) @binding(5) var y: texture_storage_2d<rgba32float, write>;  // [T, N]

@compute @workgroup_size(WG)
fn linear(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    #paste product
    let n4 = params.outer / 4u;
    #unroll n TN/4
    let bias{n} = bias[min(col / 4u + {n}u, n4 - 1u)];
    #unroll m TM
    store(row + {m}u, col / 4u + {n}u, n4, a{m}_{n} + bias{n});
    #end
    #end
}

fn store(row: u32, n: u32, n4: u32, sum: vec4<f32>) {
    if row >= params.rows || n >= n4 { return; }
    let to = at(row, n4) + vec2(n, 0u);
    var value = sum;
    if RESIDUAL { value += textureLoad(r, to, 0); }
    textureStore(y, to, activation(value));
}
