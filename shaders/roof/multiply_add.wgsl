// multiply_add: roof of arithmetic: nothing but multiply-adds on registers.
//
//     a_n = a_n * m + c        for 8 independent vec4s a_0 … a_7, four times per round
//
// Shapes      y: [invocations, 4]
// Work        256 operations per invocation and round: 8 vec4s, 4 steps, a multiply and an add each
// Traffic     writes one vec4 per invocation; negligible with many rounds
// Numerics    0 < m < 1, so that every a tends to c / (1 - m): no overflow, no denormals
// Host        src/kernel_check/roof.rs

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u;      // invocations per workgroup
const FUSED: bool = true; // whether to use fma(); where it is slow, a * m + c is the roof

struct Params {
    rounds: u32,
    m: f32,
    c: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

fn next(a: vec4<f32>) -> vec4<f32> {
    if FUSED {
        return fma(a, vec4(params.m), vec4(params.c));
    }
    return a * params.m + params.c;
}

@compute @workgroup_size(WG)
fn multiply_add(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let i = (wg.y * grid.x + wg.x) * WG + lid;
    if i >= arrayLength(&y) { return; }
    let start = vec4(f32(lid), 1.0, 2.0, 3.0) * params.c;
    var a0 = start;
    var a1 = start + 1.0;
    var a2 = start + 2.0;
    var a3 = start + 3.0;
    var a4 = start + 4.0;
    var a5 = start + 5.0;
    var a6 = start + 6.0;
    var a7 = start + 7.0;
    for (var n = 0u; n < params.rounds; n++) {
        a0 = next(next(next(next(a0))));
        a1 = next(next(next(next(a1))));
        a2 = next(next(next(next(a2))));
        a3 = next(next(next(next(a3))));
        a4 = next(next(next(next(a4))));
        a5 = next(next(next(next(a5))));
        a6 = next(next(next(next(a6))));
        a7 = next(next(next(next(a7))));
    }
    y[i] = (a0 + a1) + (a2 + a3) + ((a4 + a5) + (a6 + a7));
}
