// row_norm: LayerNorm or RMSNorm of one row of D elements, held in registers by the WG invocations of a workgroup.
//
//     y_i = (z_i - mean(z)) / sqrt(var(z) + eps)          var biased, as in torch.nn.LayerNorm
//     y_i = z_i / sqrt(mean(z^2) + eps)                   if RMS (Zhang, Sennrich 2019, arXiv:1910.07467)
//
// Two passes, E[(z - mean)^2]; not E[z^2] - mean^2, which cancels when |mean| >> std.
// The importing kernel declares `const WG`, `const D` and `const RMS`, and stores vec4 number n * WG + lid of the row
// in z[n].

#import reduce

const D4: u32 = D / 4u;
const PER: u32 = (D4 + WG - 1u) / WG; // vec4s held by one invocation
const_assert D % 4u == 0u;

alias Row = array<vec4<f32>, PER>;

// Normalises z in place.  Entries beyond the row must be zero on entry and are undefined on return.
fn row_norm(lid: u32, z: ptr<function, Row>, eps: f32) {
    var mean = 0.0;
    if !RMS {
        var sum = 0.0;
        for (var n = 0u; n < PER; n++) {
            sum += dot((*z)[n], vec4(1.0));
        }
        mean = workgroup_sum(lid, sum) / f32(D);
    }

    var square = 0.0;
    for (var n = 0u; n < PER; n++) {
        if n * WG + lid < D4 {
            let d = (*z)[n] - mean;
            square += dot(d, d);
        }
    }
    // 1 / sqrt, not inverseSqrt: the latter may have an error of 2 ULP, and eps may be as small as 1e-12.
    let scale = 1.0 / sqrt(workgroup_sum(lid, square) / f32(D) + eps);

    for (var n = 0u; n < PER; n++) {
        (*z)[n] = ((*z)[n] - mean) * scale;
    }
}
