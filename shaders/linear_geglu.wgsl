// linear_geglu: h = activation(x·W_gᵀ) ⊙ (x·W_uᵀ), both halves in one tiled product.
//
//     h_tf = activation(sum over k of x_tk * wg_fk) * (sum over k of x_tk * wu_fk)
//
// Shapes      x: [T, K]   w: [2F, K], four rows of W_g, four of W_u, and so on   h: [T, F]
// Work        workgroup = BM rows by BN columns of x·Wᵀ; invocation = 8 by 8 of them: the left four columns are the
//             gate of the right four (lib/product_8x8.wgsl); for few rows, in SLICES (lib/slices_many.wgsl)
// Traffic     the [T, 2F] product never leaves the registers: 4*T*F elements less than with a kernel of its own
// Numerics    f32 accumulate in an order of k that the Spec fixes
// Host        src/kernels/linear_geglu.rs     CPU twin  src/reference/linear_geglu.rs
// Test        tests/kernels/linear_geglu.rs   Bench     benches/kernels.rs "linear_geglu"

#import elem as h
#import activation
#import product_8x8

// Spec: fixed when the pipeline is built (host may rewrite the values).
const BM: u32 = 64u;    // rows per workgroup
const BN: u32 = 64u;    // columns of x·Wᵀ per workgroup
const BK: u32 = 16u;    // inner elements staged at a time, for each slice
const SLICES: u32 = 1u; // parts that the inner elements staged are taken in, side by side

struct Params {
    first: u32,      // row that this dispatch begins with
    rows: u32,       // row that it ends before, at most T
    outer: u32,      // 2F
    inner: u32,      // K
    gate_first: u32, // not asked here: the host has put the halves in place
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
) {
    let origin = product_origin(wg, grid, lid);
    let sums = product(origin, lid);
    #unroll m 7/SLICES+1
    store(sums.y{m}, origin.x + held(lid, {m}u), origin.y);
    #end
}

fn store(sums: Row8, row: u32, col: u32) {
    if row >= params.rows || col >= params.outer { return; }
    h[row * (params.outer / 8u) + col / 8u] = store4_h(activation(sums.l) * sums.r);
}
