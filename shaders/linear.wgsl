// linear: y = act(x·Wᵀ + bias), or y = act(x·Wᵀ + bias + r), tiled.
//
//     y_tn = act(sum over k of x_tk * w_nk + bias_n + r_tn)        act: imported, usually identity
//
// Shapes      x: [T, K]   w: [N, K]   bias: [N]   r, y: [T, N]   (row-major; W as PyTorch stores it)
// Work        workgroup = BM rows by BN columns of y; invocation = TM by TN of them, in registers
//             (lib/product_tiled.wgsl); for few rows, SLICES parts of the inner elements are summed in parallel
//             (lib/slices_many.wgsl)
// Traffic     reads T*N*K*(1/BM + 1/BN) elements; compute-bound from T of about 64 on
// Numerics    f32 accumulate in an order of k that the Spec fixes: a row's result does not depend on its neighbours
// Host   src/kernels/linear.rs        Reference  src/reference/linear.rs
// Check  src/kernel_check/linear.rs   Bench      benches/kernels.rs "linear"

#import activation
#import elem as r
#import elem as y
#import product_tiled

// Spec: fixed when the pipeline is built (host may rewrite the values).
const TM: u32 = 8u;           // rows of y per invocation
const TN: u32 = 8u;           // columns of y per invocation
const BM: u32 = 64u;          // rows of y per workgroup
const BN: u32 = 64u;          // columns of y per workgroup
const BK: u32 = 16u;          // inner elements staged at a time, for each slice
const SLICES: u32 = 1u;       // parts of the staged inner elements, computed in parallel
const HELD: u32 = 8u;         // rows of y that an invocation stores: TM / SLICES, rounded up
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
) {
    let origin = product_origin(wg, grid, lid);
    let sums = product(origin, lid);
    #unroll m HELD
    #unroll g TN/4
    store(sums.y{m}.c{g}, origin.x + held(lid, {m}u), origin.y + {4*g}u);
    #end
    #end
}

fn store(sum: vec4<f32>, row: u32, col: u32) {
    if row >= params.rows || col >= params.outer { return; }
    let to = row * (params.outer / 4u) + col / 4u;
    var value = sum + bias[col / 4u];
    if RESIDUAL { value += load4_r(r[to]); }
    y[to] = store4_y(activation(value));
}
