// pool: one vector per span of tokens: mean over it, truncated to the leading components, L2 norm.
//
//     e_d = 1/n * sum over the n tokens t of the span of x_t,d        d < dims
//     y   = e / max(|e|, 1e-12)                                       if params.normalize is set
//
// A span is a sequence, special tokens included, or a chunk of one (late chunking: Günther et al. 2024,
// arXiv:2409.04701), or one token; spans may overlap.  Truncation precedes normalisation (Kusupati et al. 2022,
// arXiv:2205.13147).
//
// Shapes      x: [T, D]   spans: [n, 2]: first token, end   y: [n, dims]
// Work        one workgroup per span, WG invocations stride over D/4 vec4s and loop over the rows
// Traffic     reads T*D, writes n*dims elements; memory-bound
// Numerics    f32; rows are added in blocks of 64, so the error grows with n/64, not n
// Host   src/kernels/pool.rs        Reference  src/reference/pool.rs
// Check  src/kernel_check/pool.rs   Bench      benches/kernels.rs "pool"

#import reduce

// Spec: fixed when the pipeline is built (host may rewrite the values).
const WG: u32 = 64u; // invocations per workgroup
const D: u32 = 768u; // row length

const D4: u32 = D / 4u;
const PER: u32 = (D4 + WG - 1u) / WG; // vec4s held by one invocation
const BLOCK: u32 = 64u;               // rows added before the sum joins the total
const_assert D % 4u == 0u;

struct Params {
    spans: u32,     // n
    dims: u32,      // leading components kept
    normalize: u32, // 1: divide by the L2 norm
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;    // [T, D]
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>; // [n, 2]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;    // [n, dims]

@compute @workgroup_size(WG)
fn pool(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let span = wg.y * grid.x + wg.x;
    if span >= params.spans { return; } // uniform over the workgroup
    let start = spans[span].x;
    let end = spans[span].y;

    var e: array<vec4<f32>, PER>;
    var square = 0.0;
    for (var n = 0u; n < PER; n++) {
        let i = n * WG + lid;
        if i >= D4 { continue; }
        var total = vec4(0.0);
        for (var block = start; block < end; block += BLOCK) {
            var sum = vec4(0.0);
            for (var t = block; t < min(block + BLOCK, end); t++) {
                sum += x[t * D4 + i];
            }
            total += sum;
        }
        e[n] = total / f32(end - start);
        let kept = vec4(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) < vec4(params.dims);
        let cut = select(vec4(0.0), e[n], kept);
        square += dot(cut, cut);
    }

    let norm = sqrt(workgroup_sum(lid, square));
    let scale = select(1.0, 1.0 / max(norm, 1e-12), params.normalize == 1u);
    for (var n = 0u; n < PER; n++) {
        for (var c = 0u; c < 4u; c++) {
            let d = 4u * (n * WG + lid) + c;
            if d < params.dims {
                y[span * params.dims + d] = e[n][c] * scale;
            }
        }
    }
}
