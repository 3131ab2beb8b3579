// linear: y = act(x·Wᵀ + bias), or y = act(x·Wᵀ + bias + r), one output per invocation: the shortest correct version.
//
// Shapes      x: [T, K]   w: [N, K]   bias: [N]   r, y: [T, N]
// Work        one invocation per output, WG along N; every operand is read from memory each time
// Numerics    f32 accumulate, in order of k, four at a time
// Host   src/kernels/linear.rs        Reference  src/reference/linear.rs
// Check  src/kernel_check/linear.rs   Bench      benches/kernels.rs "linear"

#import activation

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u;          // invocations per workgroup
const RESIDUAL: bool = false; // whether r is added

struct Params {
    first: u32, // first row of this dispatch
    rows: u32,  // end of its rows, exclusive, at most T
    outer: u32, // N
    inner: u32, // K
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;  // [T, K]
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;  // [N, K]
@group(0) @binding(3) var<storage, read> bias: array<f32>;     // [N]
@group(0) @binding(4) var<storage, read> r: array<f32>;        // [T, N]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;  // [T, N]

@compute @workgroup_size(WG)
fn linear(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let groups = (params.outer + WG - 1u) / WG; // workgroups along N
    let group = wg.y * grid.x + wg.x;
    let row = params.first + group / groups;
    let n = group % groups * WG + lid;
    if row >= params.rows || n >= params.outer { return; }

    let k4 = params.inner / 4u;
    var sum = 0.0;
    for (var k = 0u; k < k4; k++) {
        sum += dot(x[row * k4 + k], w[n * k4 + k]);
    }
    sum += bias[n];
    if RESIDUAL { sum += r[row * params.outer + n]; }
    y[row * params.outer + n] = activation(vec4(sum)).x;
}
