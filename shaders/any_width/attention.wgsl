// attention: softmax(q·kᵀ/√E + b_hij)·v, without storing the T×T scores; heads of any width up to 128.
//
//     s_ij = q_i·k_j / sqrt(E) + b_hij                  j a key of i's sequence
//     o_i  = Σ_j exp(s_ij - M_i) v_j / Σ_j exp(s_ij - M_i),   M_i = max_j s_ij
//
// Computed in one sweep over key tiles with a running maximum M, sum L and output O,
// rescaled by exp(M_old - M_new) when M grows (Milakov & Gimelshein 2018, arXiv:1805.02867;
// Dao 2023, arXiv:2307.08691).  The bias b is ALiBi's or that of
// a table (lib/bias_alibi.wgsl, lib/bias_table.wgsl).
//
// Shapes      q, k, v, context: [T, D], D = H·E   biases: [H] or [H, 2·REACH + 1]   tiles: [n, 4]
// Work        workgroup = (one tile of WG queries, one head), one query per invocation; no workgroup is idle:
//             the host lists the tiles, so a short sequence takes one
// Memory      sh_k, sh_v: BK·E each; q, O and BK scores in registers.  All invocations read the same key at the
//             same time, which workgroup memory broadcasts
// Skips       no padding and no mask: the keys of a sequence are its first tokens, usually all.  Tiles of keys whose
//             weight is provably below params.skip are skipped (proof in lib/skip_bound.wgsl)
// Numerics    f32; M starts at -3.4e38, not -inf (fast-math drivers drop inf); keys past the end get the same score,
//             and their exp is 0 because every key tile holds at least one real key
// Host   src/kernels/attention.rs        Reference  src/reference/attention.rs
// Check  src/kernel_check/attention.rs   Bench      benches/kernels.rs "attention"

#import elem
#import bias
#import skip_bound

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // queries per workgroup
const BK: u32 = 32u; // keys staged at a time
const E: u32 = 64u;  // head width
const REACH: u32 = 0u; // distance from which the biases of a table are equal

const E4: u32 = E / 4u;
const LOWEST: f32 = -3.4e38;
const TILE: u32 = WG;
const_assert E % 4u == 0u && TILE % BK == 0u && BK * E4 >= WG;

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
@group(0) @binding(1) var<storage, read> q: array<Elem4>;              // [T, D]
@group(0) @binding(2) var<storage, read> k: array<Elem4>;              // [T, D]
@group(0) @binding(3) var<storage, read> v: array<Elem4>;              // [T, D]
@group(0) @binding(4) var<storage, read> biases: array<f32>;           // [H] or [H, 2·REACH + 1]
@group(0) @binding(5) var<storage, read> tiles: array<vec4<u32>>;      // [n, 4]: first query, end, first key, end
@group(0) @binding(6) var<storage, read> norms: array<f32>;            // [n, H]: largest norm of a tile's keys
@group(0) @binding(7) var<storage, read_write> context: array<Elem4>;  // [T, D]

var<workgroup> sh_k: array<vec4<f32>, BK * E4>;
var<workgroup> sh_v: array<vec4<f32>, BK * E4>;

@compute @workgroup_size(WG)
fn attention(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let entry = params.first + wg.y * grid.x + wg.x;
    let head = wg.z;
    if entry >= params.tiles { return; } // uniform over the workgroup
    let first = tiles[entry].x;
    let end = tiles[entry].y;
    let start = tiles[entry].z;
    let keys_end = tiles[entry].w;
    let here = tile_position(entry, first, start, keys_end);
    let slope = slope_of(head);
    let i = first + lid;
    let live = i < end; // others only help to stage keys
    let query = min(i, end - 1u) * params.q_step + params.q_column + head * E4;

    var qi: array<vec4<f32>, E4>;
    var square = 0.0;
    for (var e = 0u; e < E4; e++) {
        qi[e] = load4(q[query + e]) * params.scale;
        square += dot(qi[e], qi[e]);
    }

    var most = LOWEST;
    var sum = 0.0;
    var o: array<vec4<f32>, E4>;
    var range = own_tile(here);
    for (var n = 0u; n < range.last - range.first; n++) {
        let tile = nth_key_tile(range, here, n);
        let tile_end = min(start + (tile + 1u) * TILE, keys_end);
        for (var j0 = start + tile * TILE; j0 < tile_end; j0 += BK) {
            for (var n = lid; n < BK * E4; n += WG) {
                let j = min(j0 + n / E4, keys_end - 1u);
                sh_k[n] = load4(k[j * params.k_step + params.k_column + head * E4 + n % E4]);
                sh_v[n] = load4(v[j * params.v_step + params.v_column + head * E4 + n % E4]);
            }
            workgroupBarrier();

            var s: array<f32, BK>;
            var grown = most;
            for (var n = 0u; n < BK; n++) {
                var score = 0.0;
                for (var e = 0u; e < E4; e++) {
                    score += dot(qi[e], sh_k[n * E4 + e]);
                }
                let j = j0 + n;
                s[n] = select(LOWEST, score + bias(slope, head, i, j), j < tile_end);
                grown = max(grown, s[n]);
            }

            let keep = exp(most - grown);
            most = grown;
            sum *= keep;
            for (var e = 0u; e < E4; e++) {
                o[e] *= keep;
            }
            for (var n = 0u; n < BK; n++) {
                let p = exp(s[n] - most);
                sum += p;
                for (var e = 0u; e < E4; e++) {
                    o[e] += p * sh_v[n * E4 + e];
                }
            }
            workgroupBarrier();
        }
        if n == 0u && here.count > 1u {
            // Rows beyond the end repeat the last one at a greater distance; exclude them from the minimum.
            let mass = -tile_max(lid, select(LOWEST, -most, live));
            let qmax = sqrt(tile_max(lid, square));
            range = skip_bound(here, keys_end - start, head, slope, qmax, mass);
        }
    }

    if live {
        for (var e = 0u; e < E4; e++) {
            context[(i * params.heads + head) * E4 + e] = store4(o[e] / sum);
        }
    }
}

// Maximum over the workgroup, in sh_k, which no invocation may be reading.
fn tile_max(lid: u32, value: f32) -> f32 {
    sh_k[lid].x = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 1u; half /= 2u) {
        if lid < half { sh_k[lid].x = max(sh_k[lid].x, sh_k[lid + half].x); }
        workgroupBarrier();
    }
    if lid == 0u { sh_k[0].x = max(sh_k[0].x, sh_k[1].x); }
    return workgroupUniformLoad(&sh_k[0]).x; // with barriers before and after; sh_k may be overwritten
}
