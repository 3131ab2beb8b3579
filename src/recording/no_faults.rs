//! Stand-in for [`Faults`] without the feature `faults`: no fault ever occurs.

/// Fault injection, switched off.
#[derive(Clone, Debug, Default)]
pub struct Faults {}

impl Faults {
    /// True if kernels of a file are refused.
    pub(crate) fn refuses(&self, _file: &str) -> bool {
        false
    }

    /// True if kernels of any file are refused.
    pub(crate) fn refuses_any(&self) -> bool {
        false
    }

    /// True if software adapters pose as hardware.
    pub(crate) fn poses(&self) -> bool {
        false
    }

    /// True if a fault has occurred.
    pub(crate) fn any_happened(&self) -> bool {
        false
    }

    /// Counts a run; true if its result is to be spoiled with a NaN.
    pub(crate) fn spoils_next(&self) -> bool {
        false
    }

    /// True if the limit allows `bytes` bytes in total.
    pub(crate) fn has_room(&self, _bytes: u64) -> bool {
        true
    }

    /// True if opening a GPU fails.
    pub(crate) fn is_closed(&self) -> bool {
        false
    }
}
