// copy: roof of memory bandwidth: every vec4 is read once and written once.
//
//     y_i = x_i
//
// Shapes      x, y: [n, 4]
// Work        a workgroup copies PER * WG contiguous vec4s, WG at a time
// Traffic     reads 4*n, writes 4*n elements
// Host        src/kernel_check/roof.rs

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 256u; // invocations per workgroup
const PER: u32 = 4u;  // vec4s per invocation

struct Params {
    n: u32, // vec4s
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn copy(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let first = (wg.y * grid.x + wg.x) * (PER * WG) + lid;
    for (var n = 0u; n < PER; n++) {
        let i = first + n * WG;
        if i < params.n {
            y[i] = x[i];
        }
    }
}
