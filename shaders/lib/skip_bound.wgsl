// skip_bound: the range of key tiles that a tile of queries must include, with proof.
//
// Take queries i of one tile and head with |q_i|/sqrt(E) <= qmax, and keys j that all lie at a distance of D or more on
// one side, with |k_j| <= kappa.  By Cauchy-Schwarz every such score is at most qmax*kappa - m*|i - j|, and since
// distances are distinct integers from D on,
//
//     sum_j exp(s_ij) <= exp(qmax*kappa - m*D) * sum_n>=0 exp(-m*n) = exp(qmax*kappa - m*D) / (1 - exp(-m)),
//
// or, with n keys in all, at most n*exp(qmax*kappa - m*D).  The sum of a row is at least exp(M_i), M_i the largest
// score so far.  So where
//
//     qmax*kappa - m*D + ln(min(n, 1/(1 - exp(-m)))) <= ln(eps/2) + min_i M_i
//
// the keys weigh less than eps/2 of every row, both sides together less than eps, and skipping them changes an
// output by at most 2*eps*max|v|.  The left side falls as kappa shrinks and D grows with every tile further out, so the
// first tile from the far end for which it fails ends the search.  A margin covers the rounding of f32.
//
// Query-only tokens after the last key are treated as if in its tile: they are further from all other tiles than that
// tile's queries, so D is at most their distance, as the proof requires.
//
// The importing kernel declares `params` (skip = ln(eps/2), heads), `norms` and TILE.

// Position of a tile of queries among the key tiles of its sequence.
struct TilePosition {
    own: u32,   // the tile's own key tile; for query-only tokens the last one
    count: u32, // number of key tiles
    base: u32,  // work list entry of the first; a sequence's tiles are consecutive
}

fn tile_position(entry: u32, first: u32, start: u32, keys_end: u32) -> TilePosition {
    let count = (keys_end - start + TILE - 1u) / TILE;
    let place = (first - start) / TILE;
    return TilePosition(min(place, count - 1u), count, entry - place);
}

struct SkipBound {
    first: u32, // first tile, within the sequence
    last: u32,  // end, exclusive
}

// State of the search for the tiles to process, in attention's workgroup memory.
struct Search {
    range: SkipBound, // tiles to process
    at: TilePosition,
    qmax: f32,
}

// The own tile only; its scores decide which others are needed.
fn own_tile(at: TilePosition) -> SkipBound {
    return SkipBound(at.own, at.own + 1u);
}

// Index of the n-th tile to process: the own first, then the others from left to right.
fn nth_key_tile(range: SkipBound, at: TilePosition, n: u32) -> u32 {
    let nth = range.first + n - 1u;
    return select(select(nth, nth + 1u, nth >= at.own), at.own, n == 0u);
}

// mass: min_i M_i.
//
// One return: FXC treats a result returned from two places as non-uniform, and refuses it as the bound of a loop with
// barriers.
fn skip_bound(at: TilePosition, keys: u32, head: u32, slope: f32, qmax: f32, mass: f32) -> SkipBound {
    var found = SkipBound(0u, at.count);
    let series = -log(max(1.0 - exp(-slope), 1.0 / f32(keys)));
    let margin = 0.01 + 1e-5 * abs(mass);
    // The lowest bound includes every tile.
    let bound = select(params.skip + mass - series - margin, -3.4e38, params.skip > 0.0);
    var kappa = 0.0;
    while found.first < at.own {
        kappa = max(kappa, norms[(at.base + found.first) * params.heads + head]);
        let distance = (at.own - found.first - 1u) * TILE + 1u;
        if qmax * kappa * 1.00001 - slope * f32(distance) > bound { break; }
        found.first++;
    }
    kappa = 0.0;
    while found.last > at.own + 1u {
        kappa = max(kappa, norms[(at.base + found.last - 1u) * params.heads + head]);
        let distance = (found.last - at.own - 2u) * TILE + 1u;
        if qmax * kappa * 1.00001 - slope * f32(distance) > bound { break; }
        found.last--;
    }
    return found;
}
