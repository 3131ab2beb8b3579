// linear_geglu: h = activation(x·W_gᵀ) ⊙ (x·W_uᵀ), matrices in textures, tiles in registers only.
//
// Shapes      x: [T, K]   w: [2F, K]   h: [T, F]
// Layout      as in texture/linear.wgsl; the rows of w alternate: four of W_g, four of W_u
// Work        invocation = TM rows by TN columns of x·Wᵀ, hence TN/2 of h; the S lanes of a subgroup share columns
// Traffic     the wide product never leaves the registers
// Numerics    f32 accumulate in fixed order of k
// Host   src/kernels/linear_geglu.rs        Reference  src/reference/linear_geglu.rs
// Check  src/kernel_check/linear_geglu.rs   Bench      benches/kernels.rs "linear_geglu"

#import page
#import activation

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // invocations per workgroup
const S: u32 = 1u;   // lanes that share loads
const LX: u32 = 8u;  // groups of S lanes along N
const TM: u32 = 8u;  // rows per invocation
const TN: u32 = 8u;  // columns of x·Wᵀ per invocation

struct Params {
    first: u32,      // first row of this dispatch
    rows: u32,       // end of its rows, exclusive, at most T
    outer: u32,      // 2F
    inner: u32,      // K
    gate_first: u32, // unused here: the host interleaves the halves of w
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;                         // [T, K]
@group(0) @binding(2) var w: texture_2d<f32>;                         // [2F, K]
@group(0) @binding(3) var h: texture_storage_2d<rgba32float, write>;  // [T, F]

@compute @workgroup_size(WG)
fn linear_geglu(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    #paste product
    #unroll n TN/8
    #unroll m TM
    store(row + {m}u, col / 8u + {n}u, activation(a{m}_{2*n}) * a{m}_{2*n+1});
    #end
    #end
}

fn store(row: u32, n: u32, value: vec4<f32>) {
    let f4 = params.outer / 8u;
    if row >= params.rows || n >= f4 { return; }
    textureStore(h, at(row, f4) + vec2(n, 0u), value);
}
