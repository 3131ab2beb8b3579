// attention: softmax(q·kᵀ/√E + b_hij)·v, matrices in textures, tiles in registers only.
//
//     s_ij = q_i·k_j / sqrt(E) + b_hij                  j a key of i's sequence
//     o_i  = Σ_j exp(s_ij - M_i) v_j / Σ_j exp(s_ij - M_i),   M_i = max_j s_ij
//
// One sweep with a running maximum, sum and output, as in shaders/attention.wgsl; the bias b is that of
// lib/bias_alibi.wgsl or lib/bias_table.wgsl.
//
// Shapes      q, k, v, context: [T, D], D = H·E   biases: [H] or [H, 2·REACH + 1]   tiles: [n, 4]   norms: [n, H]
// Work        workgroup = (one tile of TILE queries, one head); invocation = TQ queries, TK keys per step.  The S
//             lanes of a subgroup have different queries and the same keys: each loads TK/S (lib/share_many.wgsl)
// Memory      queries, scores and outputs in registers; no workgroup memory, no barrier
// Skips       no padding and no mask: the keys of a sequence are its first tokens.  Tiles of keys whose weight is
//             provably below params.skip are skipped (proof in lib/skip_bound.wgsl)
// Numerics    f32; M starts at -3.4e38, not -inf (fast-math drivers drop inf)
// Host   src/kernels/attention.rs        Reference  src/reference/attention.rs
// Check  src/kernel_check/attention.rs   Bench      benches/kernels.rs "attention"

#import page
#import bias
#import lanes
#import skip_bound

// Spec: fixed when the pipeline is built (host may rewrite the values).
const TILE: u32 = 64u; // queries per workgroup
const S: u32 = 1u;     // lanes that share loads
const TQ: u32 = 4u;    // queries per invocation
const TK: u32 = 8u;    // keys per step
const E: u32 = 64u;    // head width
const REACH: u32 = 0u; // distance from which the biases of a table are equal

const WG: u32 = TILE / TQ;
const E4: u32 = E / 4u;
const LOWEST: f32 = -3.4e38;
const_assert E % 4u == 0u && TILE % TK == 0u && TK % 4u == 0u && TK % S == 0u && WG % S == 0u;

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
@group(0) @binding(1) var q: texture_2d<f32>;                               // [T, D]
@group(0) @binding(2) var k: texture_2d<f32>;                               // [T, D]
@group(0) @binding(3) var v: texture_2d<f32>;                               // [T, D]
@group(0) @binding(4) var<storage, read> biases: array<f32>;                // [H] or [H, 2·REACH + 1]
@group(0) @binding(5) var<storage, read> tiles: array<vec4<u32>>;           // [n, 4]: first query, end, first key, end
@group(0) @binding(6) var<storage, read> norms: array<f32>;                 // [n, H]: largest norm of a tile's keys
@group(0) @binding(7) var context: texture_storage_2d<rgba32float, write>;  // [T, D]

@compute @workgroup_size(WG)
fn attention(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let entry = params.first + wg.z * grid.y + wg.y;
    let head = wg.x;
    if entry >= params.tiles { return; } // uniform over the workgroup
    let lane = lid % S;
    let first = tiles[entry].x;
    let end = tiles[entry].y;
    let start = tiles[entry].z;
    let keys_end = tiles[entry].w;
    let here = tile_position(entry, first, start, keys_end);
    let slope = slope_of(head);
    let i0 = first + lid * TQ;
    let column = vec2(head * E4, 0u);

    var square = 0.0; // largest squared norm of the queries
    #unroll m TQ
    let query{m} = at(min(i0 + {m}u, end - 1u), params.q_step) + vec2(params.q_column, 0u) + column;
    var square{m} = 0.0;
    #unroll e E/4
    let q{m}_{e} = textureLoad(q, query{m} + vec2({e}u, 0u), 0) * params.scale;
    square{m} += dot(q{m}_{e}, q{m}_{e});
    var o{m}_{e} = vec4<f32>();
    #end
    square = max(square, square{m});
    var most{m} = LOWEST;
    var sum{m} = 0.0;
    #end

    var range = own_tile(here);
    for (var n = 0u; n < range.last - range.first; n++) {
        let tile = nth_key_tile(range, here, n);
        let tile_end = min(start + (tile + 1u) * TILE, keys_end);
        for (var j0 = start + tile * TILE; j0 < tile_end; j0 += TK) {
            // Keys and values that this lane loads.
            #unroll h TK/S
            let mine{h} = min(j0 + {h}u * S + lane, keys_end - 1u);
            let key{h} = at(mine{h}, params.k_step) + vec2(params.k_column, 0u) + column;
            let value{h} = at(mine{h}, params.v_step) + vec2(params.v_column, 0u) + column;
            #end
            #unroll m TQ
            #unroll n TK/4
            var s{m}_{n} = vec4<f32>();
            #end
            #end
            #unroll e E/4
            {
                #unroll h TK/S
                let part{h} = textureLoad(k, key{h} + vec2({e}u, 0u), 0);
                #end
                #unroll i TK
                #paste share
                #end
                #unroll n TK/4
                #unroll m TQ
                s{m}_{n} += q{m}_{e} * mat4x4(b{4*n}, b{4*n+1}, b{4*n+2}, b{4*n+3});
                #end
                #end
            }
            #end

            #unroll n TK/4
            let keys{n} = vec4(j0 + {4*n}u) + vec4(0u, 1u, 2u, 3u);
            #end
            #unroll m TQ
            var grown{m} = most{m};
            #unroll n TK/4
            s{m}_{n} += bias4(slope, head, i0 + {m}u, keys{n});
            s{m}_{n} = select(vec4(LOWEST), s{m}_{n}, keys{n} < vec4(tile_end));
            grown{m} = max(grown{m}, max(max(s{m}_{n}.x, s{m}_{n}.y), max(s{m}_{n}.z, s{m}_{n}.w)));
            #end
            let keep{m} = exp(most{m} - grown{m});
            most{m} = grown{m};
            sum{m} *= keep{m};
            #unroll n TK/4
            s{m}_{n} = exp(s{m}_{n} - grown{m});
            sum{m} += (s{m}_{n}.x + s{m}_{n}.y) + (s{m}_{n}.z + s{m}_{n}.w);
            #end
            #end

            #unroll e E/4
            {
                #unroll h TK/S
                let part{h} = textureLoad(v, value{h} + vec2({e}u, 0u), 0);
                #end
                #unroll i TK
                #paste share
                #end
                #unroll m TQ
                o{m}_{e} *= keep{m};
                #unroll n TK/4
                o{m}_{e} += mat4x4(b{4*n}, b{4*n+1}, b{4*n+2}, b{4*n+3}) * s{m}_{n};
                #end
                #end
            }
            #end
        }
        if n == 0u && here.count > 1u {
            // Queries beyond the end repeat the last one at a greater distance; exclude them from the minimum.
            var mass = 3.4e38;
            #unroll m TQ
            if i0 + {m}u < end { mass = min(mass, most{m}); }
            #end
            range = skip_bound(here, keys_end - start, head, slope, sqrt(square), mass);
            range = SkipBound(least(range.first), most(range.last)); // same range for all lanes
        }
    }

    #unroll m TQ
    if i0 + {m}u < end {
        let to = at(i0 + {m}u, params.heads * E4) + column;
        #unroll e E/4
        textureStore(context, to + vec2({e}u, 0u), o{m}_{e} / sum{m});
        #end
    }
    #end
}
