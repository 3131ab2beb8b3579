//! Names of option values, for parsing and display.

use crate::{
    embedder::{OnLong, Pooling, Role, TruncationSide},
    error::Error,
    kernels::{Dtype, Tier},
    model::Task,
    tune::Tune,
};
use std::{fmt, str::FromStr};

/// Finds a value by its name.
fn find<T: Copy>(
    what: &str,
    name: &str,
    all: impl IntoIterator<Item = (T, &'static str)>,
) -> Result<T, Error> {
    let mut names = Vec::new();
    for (value, known) in all {
        if known == name {
            return Ok(value);
        }
        names.push(known);
    }
    let (last, others) = names.split_last().expect("values have names");
    Err(Error::Option(format!("{what}: expected {} or {last}, got `{name}`", others.join(", "))))
}

/// Implements `Display` and `FromStr` of an enum by names of its values.
macro_rules! named {
    ($type:ident, $what:literal, $($value:ident = $name:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$value => $name),+
                })
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                find($what, name, [$((Self::$value, $name)),+])
            }
        }
    };
}

named!(OnLong, "on_long", Error = "error", Truncate = "truncate", Window = "window");
named!(
    Pooling,
    "pooling",
    Auto = "auto",
    Mean = "mean",
    Cls = "cls",
    Last = "lasttoken",
    Max = "max",
    WeightedMean = "weightedmean",
    MeanSqrtLen = "mean_sqrt_len_tokens"
);
named!(TruncationSide, "truncation_side", Left = "left", Right = "right");
named!(Role, "role", Plain = "plain", Query = "query", Document = "document");
named!(Tune, "tune", Off = "off", Known = "known", Search = "search");

impl FromStr for Dtype {
    type Err = Error;

    /// Parses `f32`, `f16`, or the names in NumPy and torch: `float32`, `float16`.
    fn from_str(name: &str) -> Result<Self, Error> {
        let long = [(Self::F32, "float32"), (Self::F16, "float16")];
        find("dtype", name, [(Self::F32, "f32"), (Self::F16, "f16")].into_iter().chain(long))
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let all = [
            (Self::Embed, "embed"),
            (Self::Rerank, "rerank"),
            (Self::MultiVector, "multi-vector"),
            (Self::FillMask, "fill-mask"),
            (Self::Encode, "encode"),
        ];
        find("task", name, all)
    }
}

impl FromStr for Tier {
    type Err = Error;

    /// Parses the tiers that are the same on every device; [`Device::tier`](crate::Device::tier)
    /// also finds `subgroup` and `matrix`, whose sizes depend on the device.
    fn from_str(name: &str) -> Result<Self, Error> {
        if ["subgroup", "matrix"].contains(&name) {
            let what = format!("tier `{name}`: its size is a device's; `Device::tier` finds it");
            return Err(Error::Option(what));
        }
        let name = Self::current_name(name);
        let all = [
            (Self::Reference, "reference"),
            (Self::Blocked, "blocked"),
            (Self::Naive, "naive"),
            (Self::Tiled, "tiled"),
            (Self::Texture, "texture"),
        ];
        find("tier", name, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Precision};
    use std::fmt::{Debug, Display};

    /// Checks that every value reads back, that errors for other names list all names, and that the
    /// default has a name.
    fn names<T>(default: T, names: &[&str], what: &str)
    where
        T: FromStr<Err = Error> + Display + Debug + PartialEq + Default,
    {
        for name in names {
            assert_eq!(name.parse::<T>().expect(name).to_string(), *name);
        }
        assert_eq!(T::default(), default);
        assert!(names.contains(&T::default().to_string().as_str()));
        for wrong in ["", "nothing", &names[0].to_uppercase(), &format!(" {}", names[0])] {
            let error = wrong.parse::<T>().expect_err(wrong);
            assert!(matches!(error, Error::Option(_)), "{error:?}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn options_read_back() {
        names(OnLong::Error, &["error", "truncate", "window"], "on_long: expected error, truncate");
        names(
            Pooling::Auto,
            &["auto", "mean", "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens"],
            "pooling: expected auto, mean, cls, lasttoken, max, weightedmean or",
        );
        names(TruncationSide::Right, &["left", "right"], "expected left or right, got `");
        names(Role::Plain, &["plain", "query", "document"], "role: expected plain, query or");
        names(Tune::Known, &["off", "known", "search"], "tune: expected off, known or search");
        names(Dtype::F32, &["f32", "f16"], "dtype: expected f32, f16, float32 or float16, got `");
        let tasks = ["embed", "rerank", "multi-vector", "fill-mask", "encode"];
        names(Task::Embed, &tasks, "task: expected embed, rerank, multi-vector, fill-mask or");
        names(Device::Auto, &["auto", "cpu", "vulkan", "metal", "dx12", "gl", "7"], "a device is");
        names(Precision::Float32, &Precision::ALL.map(Precision::name), "precision `");
        assert_eq!("float16".parse::<Dtype>().ok(), Some(Dtype::F16));
    }

    #[test]
    fn tiers_read_back() {
        for name in ["reference", "blocked", "naive", "tiled", "texture"] {
            assert_eq!(name.parse::<Tier>().expect(name).to_string(), name);
        }
        assert_eq!("twin".parse::<Tier>().ok(), Some(Tier::Reference));
        for (name, says) in [
            ("subgroup", "`Device::tier` finds it"),
            ("matrix", "`Device::tier` finds it"),
            ("fast", "tier: expected reference, blocked, naive, tiled or texture, got `fast`"),
        ] {
            let error = name.parse::<Tier>().expect_err(name);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
