// layer_norm: residual add and LayerNorm, one row per invocation, from and into textures.
//
//     z_i = x_i + r_i                                    (z_i = x_i if there is no residual)
//     y_i = (z_i - mean(z)) / sqrt(var(z) + eps) * gamma_i + beta_i
//
// where var is the biased variance, as in torch.nn.LayerNorm; if RMS, mean is 0 (RMSNorm, arXiv:1910.07467).
// Ba, Kiros, Hinton 2016, arXiv:1607.06450.
//
// Shapes      x, r, y: [T, D]   gamma, beta: [D]
// Work        one invocation per row, WG rows per workgroup; the row is read three times, from cache
// Memory      no workgroup memory, no barrier
// Numerics    f32; two passes, E[(z-mean)^2], summed in the four lanes of a vec4
// Host   src/kernels/layer_norm.rs        Reference  src/reference/layer_norm.rs
// Check  src/kernel_check/layer_norm.rs   Bench      benches/kernels.rs "layer_norm"

#import page

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 16u;          // invocations per workgroup
const D: u32 = 768u;          // row length
const RESIDUAL: bool = true;  // whether r is added
const RMS: bool = false;      // whether the mean is left in

const D4: u32 = D / 4u;
const_assert D % 4u == 0u;

struct Params {
    rows: u32, // T
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;                         // [T, D]
@group(0) @binding(2) var r: texture_2d<f32>;                         // [T, D]
@group(0) @binding(3) var<storage, read> gamma: array<vec4<f32>>;     // [D]
@group(0) @binding(4) var<storage, read> beta: array<vec4<f32>>;      // [D]
@group(0) @binding(5) var y: texture_storage_2d<rgba32float, write>;  // [T, D]

@compute @workgroup_size(WG)
fn layer_norm(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let row = (wg.y * grid.x + wg.x) * WG + lid;
    if row >= params.rows { return; }
    let origin = at(row, D4);

    var sum = vec4(0.0);
    for (var i = 0u; i < D4; i++) {
        sum += z(origin, i);
    }
    let mean = select(dot(sum, vec4(1.0)) / f32(D), 0.0, RMS);
    var square = vec4(0.0);
    for (var i = 0u; i < D4; i++) {
        let d = z(origin, i) - mean;
        square += d * d;
    }
    let scale = 1.0 / sqrt(dot(square, vec4(1.0)) / f32(D) + params.eps);
    for (var i = 0u; i < D4; i++) {
        textureStore(y, origin + vec2(i, 0u), (z(origin, i) - mean) * scale * gamma[i] + beta[i]);
    }
}

fn z(origin: vec2<u32>, i: u32) -> vec4<f32> {
    var value = textureLoad(x, origin + vec2(i, 0u), 0);
    if RESIDUAL { value += textureLoad(r, origin + vec2(i, 0u), 0); }
    return value;
}
