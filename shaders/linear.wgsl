// linear: y = act(x·Wᵀ + bias), or y = act(x·Wᵀ + bias) + r, tiled.
//
//     y_tn = act(sum over k of x_tk * w_nk + bias_n) + r_tn        act: imported, none for most
//
// Shapes      x: [T, K]   w: [N, K]   bias: [N]   r, y: [T, N]   (row-major; W as PyTorch stores it)
// Work        workgroup = BM rows by BN columns of y; invocation = 8 by 8 of them, in registers (lib/product_8x8.wgsl);
//             for few rows, in SLICES of the inner elements each (lib/slices_many.wgsl)
// Traffic     reads T*N*K*(1/BM + 1/BN) elements; compute-bound from T of about 64 on
// Numerics    f32 accumulate in an order of k that the Spec fixes: a row's result does not depend on its neighbours
// Host        src/kernels/linear.rs           CPU twin  src/reference/linear.rs
// Test        tests/kernels/linear.rs         Bench     benches/kernels.rs "linear"

#import activation
#import elem as y
#import product_8x8

// Spec: fixed when the pipeline is built (host may rewrite the values).
const BM: u32 = 64u;          // rows of y per workgroup
const BN: u32 = 64u;          // columns of y per workgroup
const BK: u32 = 16u;          // inner elements staged at a time, for each slice
const SLICES: u32 = 1u;       // parts that the inner elements staged are taken in, side by side
const RESIDUAL: bool = false; // whether r is added

struct Params {
    first: u32, // row that this dispatch begins with
    rows: u32,  // row that it ends before, at most T
    outer: u32, // N
    inner: u32, // K
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem4_x>;        // [T, K]
@group(0) @binding(2) var<storage, read> w: array<Elem4_w>;        // [N, K]
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;   // [N]
@group(0) @binding(4) var<storage, read> r: array<vec4<f32>>;      // [T, N]
@group(0) @binding(5) var<storage, read_write> y: array<Elem4_y>;  // [T, N]

@compute @workgroup_size(WG)
fn linear(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let origin = product_origin(wg, grid, lid);
    let sums = product(origin, lid);
    #unroll m 7/SLICES+1
    store8(sums.y{m}, origin.x + held(lid, {m}u), origin.y);
    #end
}

fn store8(sums: Row8, row: u32, col: u32) {
    store(sums.l, row, col);
    store(sums.r, row, col + 4u);
}

fn store(sum: vec4<f32>, row: u32, col: u32) {
    if row >= params.rows || col >= params.outer { return; }
    let to = row * (params.outer / 4u) + col / 4u;
    var value = activation(sum + bias[col / 4u]);
    if RESIDUAL { value += r[to]; }
    y[to] = store4_y(value);
}
