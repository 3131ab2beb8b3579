//! Activation functions of products.

use serde::{Deserialize, Serialize};

/// Activation function of a product: of the gated half of an MLP, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// `x`
    Identity,
    /// `x·Φ(x)` with the error function, not its tanh approximation.
    Gelu,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// All activations.
    const ALL: [Self; 3] = [Self::Identity, Self::Gelu, Self::Relu];

    /// Name of the shader file that a product imports for it.
    pub fn import(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gelu => "gelu",
            Self::Relu => "relu",
        }
    }

    /// Finds an activation by [`Activation::import`].
    pub fn from_import(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|activation| activation.import() == name)
    }

    /// Value at `x`.
    pub fn of(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            // erfc, not 1 + erf: the latter cancels for x far below 0
            Self::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            Self::Relu => x.max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_the_exact_one() {
        // 0.5·x·(1 + erf(x/√2)), to the digits of a table; the tanh form gives -0.00363 at -3
        for (x, y) in [(0.0, 0.0), (1.0, 0.841_344_746), (-1.0, -0.158_655_254)] {
            assert!((Activation::Gelu.of(x) - y).abs() < 1e-9, "{x}");
        }
        assert!((Activation::Gelu.of(-3.0) + 0.004_049_694).abs() < 1e-9);
    }

    #[test]
    fn imports_read_back() {
        for activation in Activation::ALL {
            assert_eq!(Activation::from_import(activation.import()), Some(activation));
        }
        assert_eq!(Activation::from_import("tanh"), None);
    }
}
