//! T5's relative attention bias, written out for every distance (Raffel et al. 2020,
//! arXiv:1910.10683, section 2.1).

/// Buckets of an encoder: half of them for keys behind the query, half for keys at or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Number of buckets, a multiple of 4: 32 in T5.
    pub count: u32,
    /// Distance from which the last bucket holds all: 128 in T5, which rounds it to 91.
    pub max_distance: u32,
}

impl Buckets {
    /// T5's.
    pub const T5: Self = Self { count: 32, max_distance: 128 };

    /// Checks that there are buckets for distances with a bucket each and for the others.
    ///
    /// # Errors
    /// Description of the number and its limits.
    pub fn check(self) -> Result<(), String> {
        let Self { count, max_distance } = self;
        if count == 0 || !count.is_multiple_of(4) || count > 1024 {
            return Err(format!(
                "relative_attention_num_buckets is {count}; supported: multiples of 4 to 1024"
            ));
        }
        if max_distance <= count / 4 || max_distance > 8192 {
            return Err(format!(
                "relative_attention_max_distance is {max_distance}; supported: {} to 8192",
                count / 4 + 1
            ));
        }
        Ok(())
    }

    /// Bucket of a distance on one side, without the half for the side.
    ///
    /// The first quarter of the buckets has one distance each; the others grow by a constant
    /// factor.
    fn of_distance(self, distance: u32) -> u32 {
        let exact = self.count / 4;
        if distance < exact {
            return distance;
        }
        let [d, e] = [f64::from(distance), f64::from(exact)];
        let log = (d / e).ln() / (f64::from(self.max_distance) / e).ln();
        let bucket = exact + (log * f64::from(self.count / 2 - exact) + 1e-12) as u32;
        bucket.min(self.count / 2 - 1)
    }

    /// Bucket of a key at a distance after the query; negative before it.
    pub fn of(self, after: i32) -> u32 {
        let side = if after > 0 { self.count / 2 } else { 0 };
        side + self.of_distance(after.unsigned_abs())
    }

    /// Distance from which all are in the last bucket.
    pub fn reach(self) -> u32 {
        let last = self.count / 2 - 1;
        (0..=self.max_distance).find(|&n| self.of_distance(n) == last).unwrap_or(self.max_distance)
    }

    /// Biases of every head and distance, \[H, 2·reach + 1\], from those of the buckets,
    /// \[buckets, H\].
    pub fn table(self, biases: &[f32]) -> Vec<f32> {
        let heads = biases.len() / self.count as usize;
        let reach = self.reach() as i32;
        let of = |head| {
            (-reach..=reach).map(move |after| biases[self.of(after) as usize * heads + head])
        };
        (0..heads).flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T5: Buckets = Buckets::T5;

    /// First distance of each bucket, as transformers' `_relative_position_bucket` has them.
    const EDGES: [u32; 8] = [8, 12, 16, 23, 32, 46, 64, 91];

    #[test]
    fn edges_are_those_of_t5() {
        for distance in 0..1000 {
            let beyond = EDGES.iter().filter(|&&edge| distance >= edge).count() as u32;
            let expected = if distance < 8 { distance } else { 7 + beyond };
            assert_eq!(T5.of(-(distance as i32)), expected, "{distance}");
            let after = if distance == 0 { 0 } else { expected + 16 };
            assert_eq!(T5.of(distance as i32), after, "{distance}");
        }
        assert_eq!(T5.reach(), 91);
    }

    #[test]
    fn a_table_has_every_distance() {
        let buckets = Buckets { count: 4, max_distance: 2 };
        assert_eq!(buckets.reach(), 1);
        // bucket 0: at the query, 1: before it, 2: never used, 3: after it; two heads
        let table = buckets.table(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0]);
        assert_eq!(table, [2.0, 1.0, 4.0, 20.0, 10.0, 40.0]);
    }
}
