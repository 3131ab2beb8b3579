// lora: low-rank product of an adapter that each token chooses, one token per workgroup.
//
//     z_t = A_k·x_t                    k = adapters_t
//     y_t = B_kᵀ·z_t + r_t             (without r_t if there is no residual)
//
// Hu et al. 2021, arXiv:2106.09685; the scale alpha/R is part of B.  An adapter of zeros leaves a token as it is.
//
// Shapes      x: [T, K]   a: [n·R, K], R rows for each adapter   b: [n·R, N]   adapters: [T]   r, y: [T, N]
// Work        one workgroup per token; its invocations stride over K/4 and then over N/4 vec4s
// Traffic     reads T*(K + N), and T*R*(K + N) from cache, writes T*N elements; memory-bound
// Numerics    f32; z is summed in WG parts (lib/low_rank.wgsl)
// Host   src/kernels/lora.rs        Reference  src/reference/lora.rs
// Check  src/kernel_check/lora.rs   Bench      benches/kernels.rs "lora"

#import elem as x
#import elem as y
#import elem as r
#import low_rank

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u;          // invocations per workgroup
const R: u32 = 4u;            // rank
const RESIDUAL: bool = true;  // whether r is added

struct Params {
    tokens: u32, // T
    inner: u32,  // K
    outer: u32,  // N
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem4_x>;        // [T, K]
@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;      // [n·R, K]
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;      // [n·R, N]
@group(0) @binding(4) var<storage, read> adapters: array<u32>;     // [T]
@group(0) @binding(5) var<storage, read> r: array<Elem4_r>;        // [T, N]
@group(0) @binding(6) var<storage, read_write> y: array<Elem4_y>;  // [T, N]

@compute @workgroup_size(WG)
fn lora(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let t = wg.y * grid.x + wg.x;
    if t >= params.tokens { return; } // uniform over the workgroup
    let k4 = params.inner / 4u;
    let n4 = params.outer / 4u;
    let first = adapters[t] * R;

    for (var j = 0u; j < R; j += 4u) {
        var part = vec4<f32>();
        for (var k = lid; k < k4; k += WG) {
            let value = load4_x(x[t * k4 + k]);
            part += four_rows((first + j) * k4 + k, k4, value);
        }
        sum_parts(lid, j, part);
    }
    for (var n = lid; n < n4; n += WG) {
        let to = t * n4 + n;
        var value = vec4<f32>();
        if RESIDUAL { value = load4_r(r[to]); }
        for (var j = 0u; j < R; j += 4u) { value += four_columns(j, (first + j) * n4 + n, n4); }
        y[to] = store4_y(value);
    }
}
