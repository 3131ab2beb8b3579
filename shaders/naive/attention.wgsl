// attention: softmax(q·kᵀ/√E + b_hij)·v, one (query, head) per invocation: the shortest correct version.
//
// Shapes      q, k, v, context: [T, D], D = H·E   biases: [H] or [H, 2·REACH + 1]   tiles: [n, 4]
// Work        workgroup = (one tile of WG queries, one head); an invocation loops over all keys of its sequence
// Numerics    online softmax as in shaders/attention.wgsl, one key at a time
// Host   src/kernels/attention.rs        Reference  src/reference/attention.rs
// Check  src/kernel_check/attention.rs   Bench      benches/kernels.rs "attention"

#import bias

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // queries per workgroup
const E: u32 = 64u;  // head width
const REACH: u32 = 0u; // distance from which the biases of a table are equal

const E4: u32 = E / 4u;
const_assert E % 4u == 0u;

struct Params {
    first: u32,    // first entry of the work list in this dispatch
    tiles: u32,    // end of its entries, exclusive
    heads: u32,    // H
    scale: f32,    // 1/sqrt(E)
    skip: f32,     // ln(eps/2), or above 0: skip nothing
    q_column: u32, // first column of q, in vec4s
    k_column: u32,
    v_column: u32,
    q_step: u32,   // row stride of q, in vec4s
    k_step: u32,
    v_step: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;              // [T, D]
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;              // [T, D]
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;              // [T, D]
@group(0) @binding(4) var<storage, read> biases: array<f32>;               // [H] or [H, 2·REACH + 1]
@group(0) @binding(5) var<storage, read> tiles: array<vec4<u32>>;          // [n, 4]: first query, end, first key, end
@group(0) @binding(6) var<storage, read> norms: array<f32>;                // [n, H]: unused here
@group(0) @binding(7) var<storage, read_write> context: array<vec4<f32>>;  // [T, D]

@compute @workgroup_size(WG)
fn attention(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let tile = params.first + wg.y * grid.x + wg.x;
    let head = wg.z;
    if tile >= params.tiles { return; }
    let i = tiles[tile].x + lid;
    if i >= tiles[tile].y { return; }
    let keys_end = tiles[tile].w;
    let query = i * params.q_step + params.q_column + head * E4;

    var most = -3.4e38; // running maximum; not -inf, which fast-math drivers may drop
    var sum = 0.0;
    var o: array<vec4<f32>, E4>;
    for (var j = tiles[tile].z; j < keys_end; j++) {
        let key = j * params.k_step + params.k_column + head * E4;
        let value = j * params.v_step + params.v_column + head * E4;
        var s = 0.0;
        for (var e = 0u; e < E4; e++) {
            s += dot(q[query + e], k[key + e]);
        }
        s = s * params.scale + bias(slope_of(head), head, i, j);

        let grown = max(most, s);
        let keep = exp(most - grown);
        let p = exp(s - grown);
        most = grown;
        sum = sum * keep + p;
        for (var e = 0u; e < E4; e++) {
            o[e] = o[e] * keep + p * v[value + e];
        }
    }
    for (var e = 0u; e < E4; e++) {
        context[(i * params.heads + head) * E4 + e] = o[e] / sum;
    }
}
