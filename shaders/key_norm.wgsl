// key_norm: the largest norm among the keys of each tile and head, from buffers.
//
//     norm_nh = max over the keys j of tile n of |k_jh|
//
// Input of the skip bound in lib/skip_bound.wgsl.
//
// Shapes      k: [T, D], D = H·E, columns of a wider tensor   tiles: [n, 4]   norms: [n, H]
// Work        one invocation per tile and head
// Traffic     reads T*D elements; memory-bound, and a hundredth of the layer's products
// Host   src/kernels/key_norm.rs        Reference  src/reference/key_norm.rs
// Check  src/kernel_check/key_norm.rs   Bench      benches/kernels.rs "key_norm"

#import elem

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u;   // invocations per workgroup
const TILE: u32 = 64u; // tokens of a tile
const E: u32 = 64u;    // head width

const E4: u32 = E / 4u;

struct Params {
    tiles: u32,    // entries of the work list
    heads: u32,    // H
    k_column: u32, // first column of k, in vec4s
    k_step: u32,   // row stride of k, in vec4s
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> k: array<Elem4>;          // [T, D]
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;  // [n, 4]: first token, and as in attention
@group(0) @binding(3) var<storage, read_write> norms: array<f32>;  // [n, H]

@compute @workgroup_size(WG)
fn key_norm(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let n = (wg.y * grid.x + wg.x) * WG + lid;
    if n >= params.tiles * params.heads { return; }
    let tile = tiles[n / params.heads];
    let column = params.k_column + n % params.heads * E4;
    let end = min(tile.w, tile.x + TILE);
    var most = 0.0;
    for (var j = tile.x; j < end; j++) {
        var square = 0.0;
        for (var e = 0u; e < E4; e++) {
            let key = load4(k[j * params.k_step + column + e]);
            square += dot(key, key);
        }
        most = max(most, square);
    }
    norms[n] = sqrt(most);
}
