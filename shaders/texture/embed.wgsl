// embed: word row + token-type row, LayerNorm, into a texture; one token per workgroup.
//
//     z_t = word[ids_t] + kind[type_ids_t]
//     x_t = LN(z_t) * gamma + beta
//
// Shapes      ids, type_ids: [T]   word: [rows, D]   kind: [types, D]   gamma, beta: [D]   x: [T, D]
// Parts       a vocabulary larger than one binding is split: this dispatch has the rows first..first + rows and
//             skips other tokens
// Work        one workgroup per token, WG invocations stride over D/4 vec4s
// Traffic     reads 2*T*D, writes T*D elements; memory-bound
// Numerics    f32 throughout
// Host   src/kernels/embed.rs        Reference  src/reference/embed.rs
// Check  src/kernel_check/embed.rs   Bench      benches/kernels.rs "embed"

#import elem as word
#import page
#import row_norm

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // invocations per workgroup
const D: u32 = 768u; // row length
const PLAIN: bool = false; // whether rows are not normalised

const RMS: bool = false;

struct Params {
    tokens: u32, // T
    first: u32,  // vocabulary row that word[0] holds
    rows: u32,   // vocabulary rows in word
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;             // [T]
@group(0) @binding(2) var<storage, read> type_ids: array<u32>;        // [T]
@group(0) @binding(3) var<storage, read> word: array<Elem4_word>;     // [rows, D]
@group(0) @binding(4) var<storage, read> kind: array<vec4<f32>>;      // [types, D]
@group(0) @binding(5) var<storage, read> gamma: array<vec4<f32>>;     // [D]
@group(0) @binding(6) var<storage, read> beta: array<vec4<f32>>;      // [D]
@group(0) @binding(7) var x: texture_storage_2d<rgba32float, write>;  // [T, D]

@compute @workgroup_size(WG)
fn embed(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    // T may exceed 65535, the limit of a grid dimension, so tokens fold into x and y.
    let t = wg.y * grid.x + wg.x;
    if t >= params.tokens { return; } // uniform over the workgroup
    let id = ids[t];
    if id < params.first || id - params.first >= params.rows { return; } // another part's token; uniform too
    let word_row = (id - params.first) * D4;
    let kind_row = type_ids[t] * D4;

    var z: Row;
    for (var n = 0u; n < PER; n++) {
        let i = n * WG + lid;
        if i < D4 {
            z[n] = load4_word(word[word_row + i]) + kind[kind_row + i];
        }
    }
    if !PLAIN { row_norm(lid, &z, params.eps); }
    for (var n = 0u; n < PER; n++) {
        let i = n * WG + lid;
        if i < D4 {
            let value = select(z[n] * gamma[i] + beta[i], z[n], PLAIN);
            textureStore(x, at(t, D4) + vec2(i, 0u), value);
        }
    }
}
