// attention: softmax(q·kᵀ/√E - m_h·|i - j|)·v, without ever storing the T×T scores.
//
//     s_ij = q_i·k_j / sqrt(E) - m_h * |i - j|          j in the same sequence as i
//     o_i  = Σ_j exp(s_ij - M_i) v_j / Σ_j exp(s_ij - M_i),   M_i = max_j s_ij
//
// Computed in one sweep over key tiles with a running maximum M, sum L and output O,
// rescaled by exp(M_old - M_new) when M grows (Milakov & Gimelshein 2018, arXiv:1805.02867;
// Dao 2023, arXiv:2307.08691).  The bias is symmetric: an encoder sees both sides (lib/alibi.wgsl).
//
// Shapes      q, k, v, context: [T, D], D = H·E   slopes: [H]   cu_seqlens: [B+1]   tiles: [n, 2]
// Work        workgroup = (one tile of WG queries, one head), one query per invocation; no workgroup is idle:
//             the host lists the tiles, so a short sequence costs one
// Memory      sh_k, sh_v: BK·E each; q, O and BK scores in registers.  All invocations read the same key at the
//             same time, which workgroup memory serves as a broadcast
// Skips       no mask and no padding exist: a sequence is the range cu_seqlens[b]..cu_seqlens[b+1]
// Numerics    f32; M starts at -3.4e38, not -inf (fast-math drivers drop inf); keys past the end score that too,
//             and exp of it is 0 because every key tile holds at least one real key
// Host        src/kernels/attention.rs        CPU twin  src/reference/attention.rs
// Test        tests/kernels/attention.rs      Bench     benches/kernels.rs "attention"

#import elem
#import alibi

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // queries per workgroup
const BK: u32 = 32u; // keys staged at a time
const E: u32 = 64u;  // head width

const E4: u32 = E / 4u;
const LOWEST: f32 = -3.4e38;
const_assert E % 4u == 0u;

struct Params {
    tiles: u32, // entries in the tile list
    heads: u32, // H
    scale: f32, // 1/sqrt(E)
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem4>;               // [T, D]
@group(0) @binding(2) var<storage, read> k: array<Elem4>;               // [T, D]
@group(0) @binding(3) var<storage, read> v: array<Elem4>;               // [T, D]
@group(0) @binding(4) var<storage, read> slopes: array<f32>;            // [H]
@group(0) @binding(5) var<storage, read> cu_seqlens: array<u32>;        // [B+1]
@group(0) @binding(6) var<storage, read> tiles: array<vec2<u32>>;       // [n, 2]: sequence, first query
@group(0) @binding(7) var<storage, read_write> context: array<Elem4>;   // [T, D]

var<workgroup> sh_k: array<vec4<f32>, BK * E4>;
var<workgroup> sh_v: array<vec4<f32>, BK * E4>;

@compute @workgroup_size(WG)
fn attention(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let tile = wg.y * grid.x + wg.x;
    let head = wg.z;
    if tile >= params.tiles { return; } // uniform over the workgroup
    let start = cu_seqlens[tiles[tile].x];
    let end = cu_seqlens[tiles[tile].x + 1u];
    let slope = slopes[head];
    let i = tiles[tile].y + lid;
    let live = i < end; // the others help to stage keys and write nothing
    let query = (min(i, end - 1u) * params.heads + head) * E4;

    var qi: array<vec4<f32>, E4>;
    for (var e = 0u; e < E4; e++) {
        qi[e] = load4(q[query + e]) * params.scale;
    }

    var most = LOWEST;
    var sum = 0.0;
    var o: array<vec4<f32>, E4>;
    for (var j0 = start; j0 < end; j0 += BK) {
        for (var n = lid; n < BK * E4; n += WG) {
            let key = (min(j0 + n / E4, end - 1u) * params.heads + head) * E4 + n % E4;
            sh_k[n] = load4(k[key]);
            sh_v[n] = load4(v[key]);
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
            s[n] = select(LOWEST, score + alibi(slope, i, j), j < end);
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

    if live {
        for (var e = 0u; e < E4; e++) {
            context[query + e] = store4(o[e] / sum);
        }
    }
}
