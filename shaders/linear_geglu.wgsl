// linear_geglu: h = activation(x·W_gᵀ) ⊙ (x·W_uᵀ), both halves in one tiled product.
//
//     h_tf = activation(sum over k of x_tk * wg_fk) * (sum over k of x_tk * wu_fk)
//
// Shapes      x: [T, K]   w: [2F, K], four rows of W_g, four of W_u, and so on   h: [T, F]
// Work        workgroup = BM rows by BN columns of x·Wᵀ; invocation = TM by TN of them: of eight columns the left four
//             gate the right four (lib/product_tiled.wgsl); for few rows, with SLICES (lib/slices_many.wgsl)
// Traffic     the [T, 2F] product never leaves the registers: 4*T*F elements less than with a separate kernel
// Numerics    f32 accumulate in an order of k that the Spec fixes
// Host   src/kernels/linear_geglu.rs        Reference  src/reference/linear_geglu.rs
// Check  src/kernel_check/linear_geglu.rs   Bench      benches/kernels.rs "linear_geglu"

#import elem as h
#import activation
#import product_tiled

// Spec: fixed when the pipeline is built (host may rewrite the values).
const TM: u32 = 8u;     // rows per invocation
const TN: u32 = 8u;     // columns of x·Wᵀ per invocation
const BM: u32 = 64u;    // rows per workgroup
const BN: u32 = 64u;    // columns of x·Wᵀ per workgroup
const BK: u32 = 16u;    // inner elements staged at a time, for each slice
const SLICES: u32 = 1u; // parts of the staged inner elements, computed in parallel
const HELD: u32 = 8u;   // rows that an invocation stores: TM / SLICES, rounded up

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
) {
    let origin = product_origin(wg, grid, lid);
    let sums = product(origin, lid);
    #unroll m HELD
    #unroll g TN/8
    store(sums.y{m}.c{2*g}, sums.y{m}.c{2*g+1}, origin.x + held(lid, {m}u), origin.y + {8*g}u);
    #end
    #end
}

fn store(gate: vec4<f32>, up: vec4<f32>, row: u32, col: u32) {
    if row >= params.rows || col >= params.outer { return; }
    h[row * (params.outer / 8u) + col / 8u] = store4_h(activation(gate) * up);
}
