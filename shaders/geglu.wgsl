// geglu: the gated half times the other half of a row.
//
//     h_f = activation(g_f) * u_f        x = [g | u] where the gate comes first, [u | g] where it comes second
//
// GEGLU with GELU, ReGLU with ReLU (Shazeer 2020, arXiv:2002.05202).  Jina's plain graph activates the first
// half, its code model the second.
//
// Shapes      gate_up: [T, 2F]   h: [T, F]
// Work        one invocation per vec4 of h
// Traffic     reads 2*T*F, writes T*F elements; memory-bound
// Numerics    f32; erf by lib/gelu.wgsl, whose error is stated there
// Host        src/kernels/geglu.rs            CPU twin  src/reference/geglu.rs
// Test        tests/kernels/geglu.rs          Bench     benches/kernels.rs "geglu"

#import elem
#import activation

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u;           // invocations per workgroup
const F: u32 = 3072u;          // width of h
const GATE_FIRST: bool = true; // which half is activated

const F4: u32 = F / 4u;
const_assert F % 4u == 0u;

struct Params {
    rows: u32, // T
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate_up: array<Elem4>;   // [T, 2F]
@group(0) @binding(2) var<storage, read_write> h: array<Elem4>;   // [T, F]

@compute @workgroup_size(WG)
fn geglu(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let i = (wg.y * grid.x + wg.x) * WG + lid;
    if i >= params.rows * F4 { return; }
    let first = (i / F4) * 2u * F4 + i % F4;
    let a = load4(gate_up[first]);
    let b = load4(gate_up[first + F4]);
    if GATE_FIRST {
        h[i] = store4(activation(a) * b);
    } else {
        h[i] = store4(a * activation(b));
    }
}
