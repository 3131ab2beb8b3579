// attention: softmax(q·kᵀ/√E - m_h·|i - j|)·v, without ever storing the T×T scores; heads of 64.
//
//     s_ij = q_i·k_j / sqrt(E) - m_h * |i - j|          j a key of i's sequence
//     o_i  = Σ_j exp(s_ij - M_i) v_j / Σ_j exp(s_ij - M_i),   M_i = max_j s_ij
//
// Computed in one sweep over key tiles with a running maximum M, sum L and output O, rescaled by exp(M_old - M_new)
// when M grows (Milakov & Gimelshein 2018, arXiv:1805.02867; Dao 2023, arXiv:2307.08691).  The bias is symmetric: an
// encoder sees both sides (lib/alibi.wgsl).
//
// Shapes      q, k, v, context: [T, D], D = H·E   slopes: [H]   tiles: [n, 4]   norms: [n, H]
// Work        workgroup = (one tile of 64 queries, one head); both products are tiled as in lib/product_8x8.wgsl:
//             an invocation has 8 queries by 2 of KEYS keys of the scores, and 8 queries by 8 columns of the output
// Memory      sh_q: CH vec4s of every query, then the weights; sh_k: CH vec4s of the keys; sh_v: the values; what an
//             invocation reads together lies together, and what neighbours read is in different bank groups
// Skips       no padding exists, and no mask: the keys of a sequence are its first tokens, mostly all.  Tiles of keys
//             whose weight is certainly below params.skip are left out (lib/reach.wgsl has the proof)
// Numerics    f32; M starts at -3.4e38, not -inf (fast-math drivers drop inf); keys past the end score that too,
//             and exp of it is 0 because every key tile holds at least one real key
// Host        src/kernels/attention.rs        CPU twin  src/reference/attention.rs
// Test        tests/kernels/attention.rs      Bench     benches/kernels.rs "attention"

#import elem
#import alibi
#import reach

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // invocations per workgroup, and queries
const E: u32 = 64u;  // head width

const TILE: u32 = WG;
const E4: u32 = E / 4u;
const KEYS: u32 = 16u;         // keys at a time
const CH: u32 = 4u;            // vec4s along E staged at a time; also vec4s of KEYS
const LX: u32 = E / 8u;        // invocations along keys, and along E
const STRIDE: u32 = LX + 1u;   // from one vec4 along E to the next, in what invocations read
const STEP: u32 = WG / CH;     // rows staged at once
const LOWEST: f32 = -3.4e38;
const_assert E == 64u && WG == 64u;

struct Params {
    first: u32,    // entry of the tile list that this dispatch begins with
    tiles: u32,    // entry that it ends before
    heads: u32,    // H
    scale: f32,    // 1/sqrt(E)
    skip: f32,     // ln(eps/2), or above 0: look at every key
    q_column: u32, // first column of q, in vec4s
    k_column: u32,
    v_column: u32,
    q_step: u32,   // from row to row of q, in vec4s
    k_step: u32,
    v_step: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<Elem4>;              // [T, D]
@group(0) @binding(2) var<storage, read> k: array<Elem4>;              // [T, D]
@group(0) @binding(3) var<storage, read> v: array<Elem4>;              // [T, D]
@group(0) @binding(4) var<storage, read> slopes: array<f32>;           // [H]
@group(0) @binding(5) var<storage, read> tiles: array<vec4<u32>>;      // [n, 4]: first query, end, first key, end
@group(0) @binding(6) var<storage, read> norms: array<f32>;            // [n, H]: largest norm of a tile's keys
@group(0) @binding(7) var<storage, read_write> context: array<Elem4>;  // [T, D]

alias Eight = array<vec4<f32>, 9>; // and one unused
alias Two = array<vec4<f32>, 3>;

var<workgroup> sh_q: array<Eight, CH * STRIDE>; // 8 queries, or weights, of each row of invocations
var<workgroup> sh_k: array<Two, CH * STRIDE>;   // 2 keys of each column of invocations
var<workgroup> sh_v: array<Eight, CH * STRIDE>; // 8 columns of each column of invocations, at 4 keys
var<workgroup> sh_row: array<vec4<f32>, 2u * WG>;

// Something of each of an invocation's queries, or eight columns of one.
struct Row8 {
    l: vec4<f32>,
    r: vec4<f32>,
}

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
    let here = stand(entry, first, start, keys_end);
    let slope = slopes[head];
    let lx = lid % LX;
    let ly = lid / LX;
    let sc = lid % CH; // what this invocation stages: vec4 sc of rows sr, sr + STEP, …
    let sr = lid / CH;

    #unroll m 8
    var o{m} = Row8(vec4(0.0), vec4(0.0));
    #end
    var most = Row8(vec4(LOWEST), vec4(LOWEST));
    var sum = Row8(vec4(0.0), vec4(0.0));
    var range = only_own(here);
    for (var n = 0u; n < range.last - range.first; n++) {
        let tile = nth_tile(range, here, n);
        let tile_end = min(start + (tile + 1u) * TILE, keys_end);
        for (var j0 = start + tile * TILE; j0 < tile_end; j0 += KEYS) {
            // Scores of queries first + ly + 8m and keys j0 + 2lx, j0 + 2lx + 1.
            #unroll m 8
            var s{m} = vec2(0.0);
            #end
            for (var e = 0u; e < E4; e += CH) {
                #unroll j 4
                let q{j} = query(min(first + sr + {j}u * STEP, end - 1u), head, e + sc);
                #end
                let key = min(j0 + sr, keys_end - 1u) * params.k_step + params.k_column + head * E4 + e + sc;
                let k0 = load4(k[key]);
                #unroll j 4
                sh_q[sc * STRIDE + sr % 8u][sr / 8u + {j}u * STEP / 8u] = q{j};
                #end
                sh_k[sc * STRIDE + sr / 2u][sr % 2u] = k0;
                workgroupBarrier();
                for (var c = 0u; c < CH; c++) {
                    let row = c * STRIDE + ly;
                    let col = c * STRIDE + lx;
                    let keys = transpose(mat2x4(sh_k[col][0], sh_k[col][1]));
                    #unroll m 8
                    let q{m} = sh_q[row][{m}];
                    #unroll x 4
                    s{m} = fma(vec2(q{m}[{x}]), keys[{x}], s{m});
                    #end
                    #end
                }
                workgroupBarrier();
            }

            let j = j0 + 2u * lx + vec2(0u, 1u);
            #unroll m 8
            let bias{m} = vec2(alibi(slope, first + ly + {8*m}u, j.x), alibi(slope, first + ly + {8*m}u, j.y));
            s{m} = select(vec2(LOWEST), s{m} + bias{m}, j < vec2(tile_end));
            let top{m} = max(s{m}.x, s{m}.y);
            #end
            sh_row[2u * lid] = vec4(top0, top1, top2, top3);
            sh_row[2u * lid + 1u] = vec4(top4, top5, top6, top7);
            workgroupBarrier();
            var grown = most;
            for (var x = 0u; x < LX; x++) {
                grown.l = max(grown.l, sh_row[2u * (ly * LX + x)]);
                grown.r = max(grown.r, sh_row[2u * (ly * LX + x) + 1u]);
            }
            let keep = Row8(exp(most.l - grown.l), exp(most.r - grown.r));
            most = grown;
            #unroll m 4
            s{m} = exp(s{m} - most.l[{m}]);
            s{m+4} = exp(s{m+4} - most.r[{m}]);
            o{m} = Row8(o{m}.l * keep.l[{m}], o{m}.r * keep.l[{m}]);
            o{m+4} = Row8(o{m+4}.l * keep.r[{m}], o{m+4}.r * keep.r[{m}]);
            #end
            sum.l = sum.l * keep.l + vec4(s0.x + s0.y, s1.x + s1.y, s2.x + s2.y, s3.x + s3.y);
            sum.r = sum.r * keep.r + vec4(s4.x + s4.y, s5.x + s5.y, s6.x + s6.y, s7.x + s7.y);

            // Output of the same queries and columns 4lx to 4lx+3 and 4(lx + LX) to 4(lx + LX)+3.
            let half = lx % 2u * 2u;
            let to = lx / 2u * STRIDE + ly;
            #unroll m 8
            sh_q[to][{m}][half] = s{m}.x;
            sh_q[to][{m}][half + 1u] = s{m}.y;
            #end
            for (var i = lid; i < KEYS * E4; i += WG) {
                let key = i / E4;
                let e = i % E4;
                let value = min(j0 + key, keys_end - 1u) * params.v_step + params.v_column + head * E4 + e;
                sh_v[key / 4u * STRIDE + e % LX][e / LX * 4u + key % 4u] = load4(v[value]);
            }
            workgroupBarrier();
            for (var c = 0u; c < CH; c++) {
                let row = c * STRIDE + ly;
                let col = c * STRIDE + lx;
                #unroll x 4
                let l{x} = sh_v[col][{x}];
                let r{x} = sh_v[col][{x+4}];
                #end
                #unroll m 8
                let p{m} = sh_q[row][{m}];
                #unroll x 4
                o{m}.l = fma(vec4(p{m}[{x}]), l{x}, o{m}.l);
                o{m}.r = fma(vec4(p{m}[{x}]), r{x}, o{m}.r);
                #end
                #end
            }
            workgroupBarrier();
        }
        if n == 0u {
            // Queries beyond the end repeat the last one further out: they must not count.
            var least = 3.4e38;
            #unroll m 4
            if first + ly + {8*m}u < end { least = min(least, most.l[{m}]); }
            if first + ly + {8*m+32}u < end { least = min(least, most.r[{m}]); }
            #end
            let mass = -tile_max(lid, -least);
            var square = 0.0;
            for (var e = 0u; e < E4; e++) {
                let part = query(min(first + lid, end - 1u), head, e);
                square += dot(part, part);
            }
            let qmax = sqrt(tile_max(lid, square));
            range = reach(here, keys_end - start, head, slope, qmax, mass);
        }
    }

    sh_row[2u * lid] = sum.l;
    sh_row[2u * lid + 1u] = sum.r;
    workgroupBarrier();
    var total = Row8(vec4(0.0), vec4(0.0));
    for (var x = 0u; x < LX; x++) {
        total.l += sh_row[2u * (ly * LX + x)];
        total.r += sh_row[2u * (ly * LX + x) + 1u];
    }
    #unroll m 4
    store8(o{m}, total.l[{m}], first + ly + {8*m}u, end, head * E4 + lx);
    store8(o{m+4}, total.r[{m}], first + ly + {8*m+32}u, end, head * E4 + lx);
    #end
}

fn query(i: u32, head: u32, e: u32) -> vec4<f32> {
    return load4(q[i * params.q_step + params.q_column + head * E4 + e]) * params.scale;
}

fn store8(o: Row8, total: f32, i: u32, end: u32, column: u32) {
    if i >= end { return; }
    context[i * params.heads * E4 + column] = store4(o.l / total);
    context[i * params.heads * E4 + column + LX] = store4(o.r / total);
}

// The maximum over the workgroup.
fn tile_max(lid: u32, value: f32) -> f32 {
    sh_row[lid].x = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lid < half { sh_row[lid].x = max(sh_row[lid].x, sh_row[lid + half].x); }
        workgroupBarrier();
    }
    let most = sh_row[0].x;
    workgroupBarrier(); // sh_row may be overwritten
    return most;
}
