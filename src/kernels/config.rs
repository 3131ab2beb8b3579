use super::{Tier, Tile, attention};
use crate::recording::Caps;
use serde::{Deserialize, Serialize};

/// Tiles of a model's products and attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelConfig {
    /// Tier of the tiles.
    pub tier: Tier,
    /// Tiles of products by number of rows, ascending; the last has no maximum.
    pub products: Vec<Tiles>,
    /// Tile of attention.
    pub attention: attention::Tiling,
}

/// Tiles of the three products, for a number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tiles {
    /// Maximum number of rows.
    pub rows: u32,
    /// Tile of `linear` without a residual.
    pub linear: Tile,
    /// Tile of `linear` with a residual.
    pub linear_add: Tile,
    /// Tile of `linear_geglu`.
    pub linear_geglu: Tile,
}

impl Tiles {
    fn list(&self) -> [Tile; 3] {
        [self.linear, self.linear_add, self.linear_geglu]
    }
}

impl KernelConfig {
    /// Default configuration of a tier before any measurement, with heads of `e` elements.
    pub fn usual(tier: Tier, e: u32) -> Self {
        let tiles = |&rows: &u32| {
            let tile = Tile::candidates(tier, rows)[0];
            Tiles { rows, linear: tile, linear_add: tile, linear_geglu: tile }
        };
        let products = Self::rows(tier).iter().map(tiles).collect();
        Self { tier, products, attention: attention::Spec::new(tier, e).tile }
    }

    /// Default configuration, adapted to the vendor's compiler.
    pub fn usual_on(caps: &Caps, tier: Tier, e: u32) -> Self {
        let mut config = Self::usual(tier, e);
        if let Some(tile) = Tile::of_vendor(caps.vendor, tier) {
            // Small row counts keep their own tiles.
            for tiles in config.products.iter_mut().filter(|tiles| tiles.linear == Tile::new(tier))
            {
                (tiles.linear, tiles.linear_add, tiles.linear_geglu) = (tile, tile, tile);
            }
        }
        config
    }

    /// Maximum rows of each entry: short queries, longer ones, everything else.  Tiers that are
    /// never tuned have only the last.
    fn rows(tier: Tier) -> &'static [u32] {
        match tier {
            Tier::Reference | Tier::Blocked | Tier::Naive | Tier::Matrix { .. } => &[u32::MAX],
            _ => &[16, 64, 1024, u32::MAX],
        }
    }

    /// Removes tiles that sum in another order than the default.
    pub fn deterministic(mut self) -> Self {
        self.products.retain(|tiles| tiles.list().iter().all(|tile| tile.slices() == 1));
        self
    }

    /// True if a tuning search on such a device may find this configuration.
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
    use super::{
        super::tier::{ARM, INTEL},
        *,
    };
    use crate::recording::Engine;

    #[test]
    fn usual_plans_suit_and_others_do_not() {
        let caps = crate::cpu::Engine::new(Tier::Reference).caps().clone();
        let caps = Caps { cpu: false, textures: true, subgroup: Some((8, 8)), ..caps };
        for vendor in [0, ARM, INTEL] {
            let caps = Caps { vendor, ..caps.clone() };
            for tier in Tier::of(&caps) {
                assert!(
                    KernelConfig::usual_on(&caps, tier, 64).suits(&caps, 64),
                    "{tier} of {vendor:x}"
                );
            }
        }
        for tier in Tier::of(&caps) {
            let config = KernelConfig::usual(tier, 64);
            assert!(config.suits(&caps, 64), "{tier}");
            let odd = Tile::Texture { wg: 1 << 30, s: 1, lx: 1, tm: 1, tn: 4 };
            let mut bad = config.clone();
            bad.products[0].linear_add = odd;
            assert!(!bad.suits(&caps, 64), "{tier}");
            let mut short = config.clone();
            short.products.pop();
            assert!(!short.suits(&caps, 64), "{tier}");
        }
        assert!(
            !KernelConfig::usual(Tier::Texture, 64).suits(&Caps { textures: false, ..caps }, 64)
        );
    }

    #[test]
    fn deterministic_plans_have_one_order() {
        let config = KernelConfig::usual(Tier::Tiled, 64);
        assert!(config.products.len() > 1);
        let deterministic = config.deterministic().products;
        assert!(
            deterministic.iter().all(|tiles| tiles.list().iter().all(|tile| tile.slices() == 1))
        );
        assert_eq!(deterministic.last().map(|tiles| tiles.rows), Some(u32::MAX));
        let config = KernelConfig::usual(Tier::Subgroup(8), 64);
        assert_eq!(config.clone().deterministic(), config);
    }
}
