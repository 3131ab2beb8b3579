use super::{Tier, Tile, attention};
use crate::recording::Caps;
use serde::{Deserialize, Serialize};

/// In which tiles a model's products and attention run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whose tiles they are.
    pub tier: Tier,
    /// For ever more rows; the last for any number.
    pub products: Vec<Tiles>,
    /// Of attention.
    pub attention: attention::Tile,
}

/// The tiles of the three products, for a number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tiles {
    /// Most rows that they are for.
    pub rows: u32,
    /// Of `linear` without a residual.
    pub linear: Tile,
    /// Of `linear` with one.
    pub linear_add: Tile,
    /// Of `linear_geglu`.
    pub linear_geglu: Tile,
}

impl Tiles {
    fn list(&self) -> [Tile; 3] {
        [self.linear, self.linear_add, self.linear_geglu]
    }
}

impl Plan {
    /// What a tier does before anything was measured, with heads of `e` elements.
    pub fn usual(tier: Tier, e: u32) -> Self {
        let tiles = |&rows: &u32| {
            let tile = Tile::candidates(tier, rows)[0];
            Tiles { rows, linear: tile, linear_add: tile, linear_geglu: tile }
        };
        let products = Self::rows(tier).iter().map(tiles).collect();
        Self { tier, products, attention: attention::Spec::new(tier, e).tile }
    }

    /// Up to how many rows each entry is for: short queries, longer ones, everything else.  Tiers
    /// that are never searched have the last alone.
    fn rows(tier: Tier) -> &'static [u32] {
        match tier {
            Tier::Twin | Tier::Blocked | Tier::Naive | Tier::Matrix { .. } => &[u32::MAX],
            _ => &[16, 64, u32::MAX],
        }
    }

    /// The same without tiles that sum in another order than the rest.
    pub fn deterministic(mut self) -> Self {
        self.products.retain(|tiles| tiles.list().iter().all(|tile| tile.slices() == 1));
        self
    }

    /// Whether it is one that a search on such a device may find.
    pub fn suits(&self, caps: &Caps, e: u32) -> bool {
        let known = |tiles: &Tiles| {
            let candidates = Tile::candidates(self.tier, tiles.rows);
            tiles.list().iter().all(|tile| candidates.contains(tile))
        };
        let rows = self.products.iter().map(|tiles| tiles.rows);
        self.tier.suits(caps)
            && rows.eq(Self::rows(self.tier).iter().copied())
            && self.products.iter().all(known)
            && attention::Spec::candidates(self.tier, e).contains(&self.attention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Engine;

    #[test]
    fn usual_plans_suit_and_others_do_not() {
        let caps = crate::cpu::Engine::new(Tier::Twin).caps().clone();
        let caps = Caps { cpu: false, textures: true, subgroup: Some((8, 8)), ..caps };
        for tier in Tier::of(&caps) {
            let plan = Plan::usual(tier, 64);
            assert!(plan.suits(&caps, 64), "{tier}");
            let odd = Tile::Texture { wg: 1 << 30, s: 1, lx: 1, tm: 1, tn: 4 };
            let mut bad = plan.clone();
            bad.products[0].linear_add = odd;
            assert!(!bad.suits(&caps, 64), "{tier}");
            let mut short = plan.clone();
            short.products.pop();
            assert!(!short.suits(&caps, 64), "{tier}");
        }
        assert!(!Plan::usual(Tier::Texture, 64).suits(&Caps { textures: false, ..caps }, 64));
    }

    #[test]
    fn deterministic_plans_have_one_order() {
        let plan = Plan::usual(Tier::Tiled, 64);
        assert!(plan.products.len() > 1);
        assert_eq!(plan.deterministic().products.len(), 1);
        let plan = Plan::usual(Tier::Subgroup(8), 64);
        assert_eq!(plan.clone().deterministic(), plan);
    }
}
