use super::Suite;
use jinabert::kernel_check::KernelCase;
use proptest::{collection::vec, prelude::*};

pub fn suite() -> Suite {
    let case = |(t, d, rows)| KernelCase::Gather { t, d, rows };
    Suite {
        hard: [
            (1, 32, vec![0]),
            (5, 768, vec![4, 0, 0, 3, 4, 1, 2]),
            // pages of a texture
            (20_000, 32, vec![8191, 8192, 0, 19_999, 16_383, 16_384]),
            // more workgroups than one grid dimension holds
            (3, 64, (0..270_000).map(|n| n % 3).collect()),
        ]
        .map(case)
        .into(),
        any: (1..300u32, 1..100u32, vec(any::<u32>(), 1..200))
            .prop_map(move |(t, d4, rows)| {
                case((t, 4 * d4, rows.iter().map(|row| row % t).collect()))
            })
            .boxed(),
        invariants: vec![],
    }
}
