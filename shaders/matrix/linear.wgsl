// linear: y = act(x·Wᵀ + bias), or y = act(x·Wᵀ + bias + r), with cooperative matrices of a subgroup.
//
//     y_tn = act(sum over k of x_tk * w_nk + bias_n + r_tn)        act: imported, usually identity
//
// Shapes      x: [T, K]   w: [N, K]   bias: [N]   r, y: [T, N]   (row-major; W as PyTorch stores it)
// Work        workgroup = 2*FM*M rows by 2*FN*M columns of y; subgroup = FM*M by FN*M (lib/product_matrix.wgsl)
// Traffic     reads T*N*K*(1/(2*FM*M) + 1/(2*FN*M)) elements
// Numerics    x and w rounded to f16, products summed in f32
// Host   src/kernels/linear.rs        Reference  src/reference/linear.rs
// Check  src/kernel_check/linear.rs   Bench      benches/kernels.rs "linear"

#import activation
#import elem as r
#import elem as y
#import product_matrix

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 128u;         // invocations per workgroup
const M: u32 = 16u;           // rows and columns of a matrix
const FM: u32 = 4u;           // matrices of a subgroup along T
const FN: u32 = 4u;           // matrices of a subgroup along N
const RESIDUAL: bool = false; // whether r is added

struct Params {
    first: u32, // first row of this dispatch
    rows: u32,  // end of its rows, exclusive, at most T
    outer: u32, // N
    inner: u32, // K
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem4_x>;        // [T, K]
@group(0) @binding(2) var<storage, read> w: array<Elem4_w>;        // [N, K]
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;   // [N]
@group(0) @binding(4) var<storage, read> r: array<Elem4_r>;        // [T, N]
@group(0) @binding(5) var<storage, read_write> y: array<Elem4_y>;  // [T, N]

@compute @workgroup_size(WG)
fn linear(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    product(wg, grid, lid, subgroup, subgroups);
}

fn store8(left: vec4<f32>, right: vec4<f32>, row: u32, col: u32) {
    store(left, row, col);
    store(right, row, col + 4u);
}

fn store(sum: vec4<f32>, row: u32, col: u32) {
    if row >= params.rows || col >= params.outer { return; }
    let to = row * (params.outer / 4u) + col / 4u;
    var value = sum + bias[col / 4u];
    if RESIDUAL { value += load4_r(r[to]); }
    y[to] = store4_y(activation(value));
}
