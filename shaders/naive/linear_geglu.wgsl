// linear_geglu: h = activation(x·W_gᵀ) ⊙ (x·W_uᵀ), four outputs per invocation: the shortest correct version.
//
// Shapes      x: [T, K]   w: [2F, K], four rows of W_g, four of W_u, and so on   h: [T, F]
// Work        one invocation per vec4 of h, WG along F; every operand is read from memory each time
// Numerics    f32 accumulate, in order of k, four at a time
// Host   src/kernels/linear_geglu.rs        Reference  src/reference/linear_geglu.rs
// Check  src/kernel_check/linear_geglu.rs   Bench      benches/kernels.rs "linear_geglu"

#import activation

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // invocations per workgroup

struct Params {
    first: u32,      // first row of this dispatch
    rows: u32,       // end of its rows, exclusive, at most T
    outer: u32,      // 2F
    inner: u32,      // K
    gate_first: u32, // unused here: the host interleaves the halves of w
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;        // [T, K]
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;        // [2F, K]
@group(0) @binding(3) var<storage, read_write> h: array<vec4<f32>>;  // [T, F]

@compute @workgroup_size(WG)
fn linear_geglu(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let f4 = params.outer / 8u;
    let groups = (params.outer + WG - 1u) / WG; // workgroups of a row; only half of their invocations are needed
    let group = wg.y * grid.x + wg.x;
    let row = params.first + group / groups;
    let n = group % groups * WG + lid;
    if row >= params.rows || n >= f4 { return; }

    let k4 = params.inner / 4u;
    var gate = vec4(0.0);
    var up = vec4(0.0);
    for (var k = 0u; k < k4; k++) {
        let value = x[row * k4 + k];
        let first = 8u * n * k4 + k;
        // Unrolled: FXC refuses to assign to a vector element with a loop index.
        #unroll c 4
        gate[{c}] += dot(value, w[first + {c}u * k4]);
        up[{c}] += dot(value, w[first + {c+4}u * k4]);
        #end
    }
    h[row * f4 + n] = activation(gate) * up;
}
