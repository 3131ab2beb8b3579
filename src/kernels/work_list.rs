//! Work list of `attention`: tiles of queries.

/// Work list of `attention`.  For every tile of at most `height` queries: its first query, the end
/// of its sequence, the sequence's first token, and the end of its keys.
///
/// `keys` has the number of keys of each sequence, its first tokens; queries need at least one.
pub fn tiles(cu_seqlens: &[u32], keys: &[u32], height: u32) -> Vec<[u32; 4]> {
    let sequences = cu_seqlens.windows(2).zip(keys);
    let tiles = sequences.flat_map(|(range, keys)| {
        let start = range[0];
        let end = range[1];
        assert!(start == end || *keys > 0, "expected a key for queries {start} to {end}, got none");
        (start..end).step_by(height as usize).map(move |first| [first, end, start, start + keys])
    });
    tiles.collect()
}

/// Number of keys for the queries of each tile.
pub fn tile_keys(tiles: &[[u32; 4]]) -> Vec<u32> {
    tiles.iter().map(|[_, _, start, end]| end - start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_each_sequence_alone() {
        let list = tiles(&[0, 5, 6, 14], &[5, 1, 3], 4);
        let of = |first, [start, keys, end]: [u32; 3]| [first, end, start, keys];
        let a = [0, 5, 5];
        let b = [5, 6, 6];
        let c = [6, 9, 14];
        assert_eq!(list, [of(0, a), of(4, a), of(5, b), of(6, c), of(10, c)]);
        assert_eq!(tile_keys(&list), [5, 5, 1, 3, 3]);
        assert!(tiles(&[0], &[], 4).is_empty());
        assert_eq!(tiles(&[0, 0, 1], &[0, 1], 4), [[0, 1, 0, 1]]);
    }

    #[test]
    #[should_panic(expected = "expected a key for queries 5 to 6, got none")]
    fn queries_need_a_key() {
        tiles(&[0, 5, 6], &[5, 0], 4);
    }
}
