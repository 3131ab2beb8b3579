// gather: some rows of a matrix in a texture, in any order.
//
//     y_n = x_rows[n]
//
// Shapes      x: [T, D]   rows: [n]   y: [n, D]
// Work        invocation = one texel of y, WG of them along the rows
// Traffic     reads n*D, writes n*D elements; memory-bound
// Numerics    none: bits are copied
// Host   src/kernels/gather.rs        Reference  src/reference/gather.rs
// Check  src/kernel_check/gather.rs   Bench      benches/kernels.rs "gather"

#import page

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // invocations per workgroup
const D: u32 = 768u; // row length

const D4: u32 = D / 4u;
const_assert D % 4u == 0u;

struct Params {
    count: u32, // n
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;                         // [T, D]
@group(0) @binding(2) var<storage, read> rows: array<u32>;            // [n]
@group(0) @binding(3) var y: texture_storage_2d<rgba32float, write>;  // [n, D]

@compute @workgroup_size(WG)
fn gather(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let i = (wg.y * grid.x + wg.x) * WG + lid;
    let n = i / D4;
    if n >= params.count { return; }
    let column = vec2(i % D4, 0u);
    textureStore(y, at(n, D4) + column, textureLoad(x, at(rows[n], D4) + column, 0));
}
