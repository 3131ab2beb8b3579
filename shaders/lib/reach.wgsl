// reach: how far from its own tile a tile of queries must look, exactly.
//
// Take queries i of one tile and head with |q_i|/sqrt(E) <= qmax, and keys j that all lie at a distance of D or more on
// one side, with |k_j| <= kappa.  By Cauchy-Schwarz every such score is at most qmax*kappa - m*|i - j|, and since
// distances are distinct integers from D on,
//
//     sum_j exp(s_ij) <= exp(qmax*kappa - m*D) * sum_n>=0 exp(-m*n) = exp(qmax*kappa - m*D) / (1 - exp(-m)),
//
// or, with n keys in all, at most n*exp(qmax*kappa - m*D).  A row's own mass is at least exp(M_i), M_i the largest
// score already seen.  So where
//
//     qmax*kappa - m*D + ln(min(n, 1/(1 - exp(-m)))) <= ln(eps/2) + min_i M_i
//
// the keys weigh less than eps/2 of every row, both sides together less than eps, and leaving them out changes an
// output by at most 2*eps*max|v|.  The left side falls as kappa shrinks and D grows with every tile further out, so the
// first tile from the far end for which it fails ends the search.  A margin covers the rounding of f32.
//
// Queries behind the last key count as of its tile: they are further from all other tiles than its own queries, so D is
// no more than their distance, which is all that the proof asks of it.
//
// The importing kernel declares `params` (skip = ln(eps/2), heads), `norms` and TILE.

struct Reach {
    first: u32, // tiles of the sequence
    last: u32,  // behind the last
}

// own: the tile of the queries, count: tiles of keys, base: the list entry of its first; mass: min_i M_i.
fn reach(own: u32, count: u32, base: u32, keys: u32, head: u32, slope: f32, qmax: f32, mass: f32) -> Reach {
    var found = Reach(0u, count);
    if params.skip > 0.0 { return found; }
    let series = -log(max(1.0 - exp(-slope), 1.0 / f32(keys)));
    let margin = 0.01 + 1e-5 * abs(mass);
    let bound = params.skip + mass - series - margin;
    var kappa = 0.0;
    while found.first < own {
        kappa = max(kappa, norms[(base + found.first) * params.heads + head]);
        let distance = (own - found.first - 1u) * TILE + 1u;
        if qmax * kappa * 1.00001 - slope * f32(distance) > bound { break; }
        found.first++;
    }
    kappa = 0.0;
    while found.last > own + 1u {
        kappa = max(kappa, norms[(base + found.last - 1u) * params.heads + head]);
        let distance = (found.last - own - 2u) * TILE + 1u;
        if qmax * kappa * 1.00001 - slope * f32(distance) > bound { break; }
        found.last--;
    }
    return found;
}
