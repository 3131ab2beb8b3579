// layer_norm: residual add and LayerNorm, one row per workgroup.
//
//     z_i = x_i + r_i                                     (z_i = x_i if there is no residual)
//     y_i = (z_i - mean(z)) / sqrt(var(z) + eps) * gamma_i + beta_i
//
// where var is the biased variance, as in torch.nn.LayerNorm; if RMS, mean is 0 (RMSNorm, arXiv:1910.07467).
// Ba, Kiros, Hinton 2016, arXiv:1607.06450.
//
// Shapes      x, r, y: [T, D]   gamma, beta: [D]   (row-major; T = packed tokens)
// Work        one workgroup per token, WG invocations stride over D/4 vec4s
// Traffic     reads 2*T*D, writes T*D elements; memory-bound
// Numerics    f32 throughout; two passes over the row held in registers (lib/row_norm.wgsl)
// Host   src/kernels/layer_norm.rs        Reference  src/reference/layer_norm.rs
// Check  src/kernel_check/layer_norm.rs   Bench      benches/kernels.rs "layer_norm"

#import elem as y
#import row_norm

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u;          // invocations per workgroup
const D: u32 = 768u;          // row length
const RESIDUAL: bool = true;  // whether r is added
const RMS: bool = false;      // whether the mean is left in

struct Params {
    rows: u32, // T
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;      // [T, D]
@group(0) @binding(2) var<storage, read> r: array<vec4<f32>>;      // [T, D]
@group(0) @binding(3) var<storage, read> gamma: array<vec4<f32>>;  // [D]
@group(0) @binding(4) var<storage, read> beta: array<vec4<f32>>;   // [D]
@group(0) @binding(5) var<storage, read_write> y: array<Elem4_y>;  // [T, D]

@compute @workgroup_size(WG)
fn layer_norm(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    // T may exceed 65535, the limit of a grid dimension, so rows fold into x and y.
    let row = wg.y * grid.x + wg.x;
    if row >= params.rows { return; } // uniform over the workgroup

    var z: Row;
    for (var n = 0u; n < PER; n++) {
        let i = n * WG + lid;
        if i < D4 {
            z[n] = x[row * D4 + i];
            if RESIDUAL {
                z[n] += r[row * D4 + i];
            }
        }
    }
    row_norm(lid, &z, params.eps);
    for (var n = 0u; n < PER; n++) {
        let i = n * WG + lid;
        if i < D4 {
            y[row * D4 + i] = store4_y(z[n] * gamma[i] + beta[i]);
        }
    }
}
