// linear_geglu: h = activation(x·W_gᵀ) ⊙ (x·W_uᵀ), with cooperative matrices of a subgroup.
//
//     h_tf = activation(sum over k of x_tk * wg_fk) * (sum over k of x_tk * wu_fk)
//
// Shapes      x: [T, K]   w: [2F, K], four rows of W_g, four of W_u, and so on   h: [T, F]
// Work        workgroup = 2*FM*M rows by 2*FN*M columns of x·Wᵀ; subgroup = FM*M by FN*M (lib/product_matrix.wgsl);
//             of eight columns the left four gate the right four
// Traffic     the [T, 2F] product never leaves the workgroup
// Numerics    x and w rounded to f16, products summed in f32
// Host   src/kernels/linear_geglu.rs        Reference  src/reference/linear_geglu.rs
// Check  src/kernel_check/linear_geglu.rs   Bench      benches/kernels.rs "linear_geglu"

#import elem as h
#import activation
#import product_matrix

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 128u; // invocations per workgroup
const M: u32 = 16u;   // rows and columns of a matrix
const FM: u32 = 4u;   // matrices of a subgroup along T
const FN: u32 = 4u;   // matrices of a subgroup along 2F

struct Params {
    first: u32,      // first row of this dispatch
    rows: u32,       // end of its rows, exclusive, at most T
    outer: u32,      // 2F
    inner: u32,      // K
    gate_first: u32, // unused here: the host interleaves the halves of w
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem4_x>;        // [T, K]
@group(0) @binding(2) var<storage, read> w: array<Elem4_w>;        // [2F, K]
@group(0) @binding(3) var<storage, read_write> h: array<Elem4_h>;  // [T, F]

@compute @workgroup_size(WG)
fn linear_geglu(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    product(wg, grid, lid, subgroup, subgroups);
}

fn store8(gate: vec4<f32>, up: vec4<f32>, row: u32, col: u32) {
    if row >= params.rows || col >= params.outer { return; }
    h[row * (params.outer / 8u) + col / 8u] = store4_h(activation(gate) * up);
}
