// attention: softmax(q·kᵀ/√E + b_hij)·v, without ever storing the T×T scores; heads of 64.
//
//     s_ij = q_i·k_j / sqrt(E) + b_hij                  j a key of i's sequence
//     o_i  = Σ_j exp(s_ij - M_i) v_j / Σ_j exp(s_ij - M_i),   M_i = max_j s_ij
//
// Computed in one sweep over key tiles with a running maximum M, sum L and output O, rescaled by exp(M_old - M_new)
// when M grows (Milakov & Gimelshein 2018, arXiv:1805.02867; Dao 2023, arXiv:2307.08691).  The bias b: lib/bias_*.wgsl.
//
// Shapes      q, k, v, context: [T, D], D = H·E   biases: [H] or [H, 2·REACH + 1]   tiles: [n, 4]   norms: [n, H]
// Work        workgroup = (one tile of 64 queries, one head); both products are tiled as in lib/product_tiled.wgsl:
//             an invocation computes R queries by 2 of KEYS keys of the scores, and R queries by 8 columns of output.
//             R = 4 fits the registers of every GPU; 8 reads workgroup memory less often
// Memory      sh_q: CH vec4s of every query, then the weights; sh_k: CH vec4s of the keys; sh_v: the values
// Skips       tiles of keys whose weight is provably below params.skip (proof in lib/skip_bound.wgsl)
// Numerics    f32; M starts at -3.4e38, not -inf (fast-math drivers drop inf); keys past the end get the same score,
//             and their exp is 0 because every key tile holds at least one real key
// Host   src/kernels/attention.rs        Reference  src/reference/attention.rs
// Check  src/kernel_check/attention.rs   Bench      benches/kernels.rs "attention"

#import elem
#import bias
#import skip_bound
#import tile_max

// Spec: fixed when the pipeline is built (host may rewrite the values).
const R: u32 = 4u;  // queries per invocation
const E: u32 = 64u; // head width
const REACH: u32 = 0u; // distance from which the biases of a table are equal

const TILE: u32 = 64u;         // queries per workgroup
const E4: u32 = E / 4u;
const KEYS: u32 = 16u;         // keys per step
const CH: u32 = 4u;            // vec4s along E staged at a time; also vec4s of KEYS
const LX: u32 = E / 8u;        // invocations along keys, and along E
const LY: u32 = TILE / R;      // invocations along queries
const WG: u32 = LX * LY;
const R4: u32 = R / 4u;
const ROWS: u32 = LY + 1u;     // stride from one vec4 along E to the next: of queries,
const STRIDE: u32 = LX + 1u;   // and of keys and values
const STEP: u32 = WG / CH;     // rows staged at once
const LOWEST: f32 = -3.4e38;
const_assert E == 64u && (R == 4u || R == 8u);

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

alias Queries = array<vec4<f32>, R + 1u>; // and one unused, against bank conflicts, as below
alias Eight = array<vec4<f32>, 9>;
alias Two = array<vec4<f32>, 3>;

var<workgroup> sh_q: array<Queries, CH * ROWS>; // R queries, or weights, of each row of invocations
var<workgroup> sh_k: array<Two, CH * STRIDE>;   // 2 keys of each column of invocations
var<workgroup> sh_v: array<Eight, CH * STRIDE>; // 8 columns of each column of invocations, at 4 keys
var<workgroup> sh_search: Search;
var<workgroup> sh_row: array<vec4<f32>, R4 * WG>; // one value per query of each invocation, in vec4s

// Eight columns of a query's output.
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
    let here = tile_position(entry, first, start, keys_end);
    let slope = slope_of(head);
    let lx = lid % LX;
    let ly = lid / LX;
    let sc = lid % CH; // what this invocation stages: vec4 sc of rows sr, sr + STEP, …
    let sr = lid / CH;

    var qmax = 0.0;
    if here.count > 1u {
        var square = 0.0;
        for (var e = 0u; e < E4; e++) {
            let part = query(min(first + lid % TILE, end - 1u), head, e);
            square += dot(part, part);
        }
        qmax = sqrt(tile_max(lid, square));
    }
    #unroll m R
    var o{m} = Row8(vec4(0.0), vec4(0.0));
    #end
    #unroll h R/4
    var most{h} = vec4(LOWEST);
    var sum{h} = vec4(0.0);
    #end
    if lid == 0u { sh_search = Search(own_tile(here), here, qmax); }
    for (var n = 0u;; n++) {
        // In memory: registers would be spilled, and compilers that know the first range split the loop in two.
        let search = workgroupUniformLoad(&sh_search);
        if n >= search.range.last - search.range.first { break; }
        let tile = nth_key_tile(search.range, search.at, n);
        let tile_end = min(start + (tile + 1u) * TILE, keys_end);
        for (var j0 = start + tile * TILE; j0 < tile_end; j0 += KEYS) {
            // Scores of queries first + ly + LY*m and keys j0 + 2lx, j0 + 2lx + 1.
            #unroll m R
            var s{m} = vec2(0.0);
            #end
            for (var e = 0u; e < E4; e += CH) {
                #unroll j R/2
                let q{j} = query(min(first + sr + {j}u * STEP, end - 1u), head, e + sc);
                #end
                let key = min(j0 + sr % KEYS, keys_end - 1u) * params.k_step + params.k_column + head * E4 + e + sc;
                let k0 = load4(k[key]);
                #unroll j R/2
                sh_q[sc * ROWS + sr % LY][sr / LY + {j}u * STEP / LY] = q{j};
                #end
                if sr < KEYS { sh_k[sc * STRIDE + sr / 2u][sr % 2u] = k0; }
                workgroupBarrier();
                for (var c = 0u; c < CH; c++) {
                    let row = c * ROWS + ly;
                    let col = c * STRIDE + lx;
                    let keys = transpose(mat2x4(sh_k[col][0], sh_k[col][1]));
                    #unroll m R
                    let q{m} = sh_q[row][{m}];
                    #unroll x 4
                    s{m} = fma(vec2(q{m}[{x}]), keys[{x}], s{m});
                    #end
                    #end
                }
                workgroupBarrier();
            }

            let j = j0 + 2u * lx + vec2(0u, 1u);
            #unroll m R
            let i{m} = first + ly + {m}u * LY;
            let b{m} = vec2(bias(slope, head, i{m}, j.x), bias(slope, head, i{m}, j.y));
            s{m} = select(vec2(LOWEST), s{m} + b{m}, j < vec2(tile_end));
            let top{m} = max(s{m}.x, s{m}.y);
            #end
            #unroll h R/4
            sh_row[R4 * lid + {h}u] = vec4(top{4*h}, top{4*h+1}, top{4*h+2}, top{4*h+3});
            #end
            workgroupBarrier();
            #unroll h R/4
            var grown{h} = most{h};
            for (var x = 0u; x < LX; x++) {
                grown{h} = max(grown{h}, sh_row[R4 * (ly * LX + x) + {h}u]);
            }
            let keep{h} = exp(most{h} - grown{h});
            most{h} = grown{h};
            #unroll x 4
            s{4*h+x} = exp(s{4*h+x} - most{h}[{x}]);
            o{4*h+x} = Row8(o{4*h+x}.l * keep{h}[{x}], o{4*h+x}.r * keep{h}[{x}]);
            let mass{4*h+x} = s{4*h+x}.x + s{4*h+x}.y;
            #end
            sum{h} = sum{h} * keep{h} + vec4(mass{4*h}, mass{4*h+1}, mass{4*h+2}, mass{4*h+3});
            #end

            // Output of the same queries and columns 4lx to 4lx+3 and 4(lx + LX) to 4(lx + LX)+3.
            let half = lx % 2u * 2u;
            let to = lx / 2u * ROWS + ly;
            #unroll m R
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
                let row = c * ROWS + ly;
                let col = c * STRIDE + lx;
                #unroll x 4
                let l{x} = sh_v[col][{x}];
                let r{x} = sh_v[col][{x+4}];
                #end
                #unroll m R
                let p{m} = sh_q[row][{m}];
                #unroll x 4
                o{m}.l = fma(vec4(p{m}[{x}]), l{x}, o{m}.l);
                o{m}.r = fma(vec4(p{m}[{x}]), r{x}, o{m}.r);
                #end
                #end
            }
            workgroupBarrier();
        }
        if n == 0u && workgroupUniformLoad(&sh_search.at.count) > 1u {
            // Queries beyond the end repeat the last one at a greater distance; exclude them from the minimum.
            var least = 3.4e38;
            #unroll h R/4
            #unroll x 4
            if first + ly + {4*h+x}u * LY < end { least = min(least, most{h}[{x}]); }
            #end
            #end
            let mass = -tile_max(lid, -least);
            let keys = keys_end - start;
            if lid == 0u { sh_search.range = skip_bound(sh_search.at, keys, head, slope, sh_search.qmax, mass); }
        }
    }

    #unroll h R/4
    sh_row[R4 * lid + {h}u] = sum{h};
    #end
    workgroupBarrier();
    #unroll h R/4
    var total{h} = vec4(0.0);
    for (var x = 0u; x < LX; x++) {
        total{h} += sh_row[R4 * (ly * LX + x) + {h}u];
    }
    #unroll x 4
    store8(o{4*h+x}, total{h}[{x}], first + ly + {4*h+x}u * LY, end, head * E4 + lx);
    #end
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
