//! Versions of the library and of its ABI.

use super::status::guard_value;
use std::ffi::{CStr, c_char};

/// ABI version of this header.  It grows if programs compiled against an older header would no
/// longer work.  New functions, statuses, options, and new fields at the end of structs with a
/// `size` do not change it.
pub const ABI_VERSION: u32 = 1;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version without NUL"),
    };

/// Returns the ABI version of the library.  If it differs from JINABERT_ABI_VERSION, header and
/// library are incompatible: call no other function.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn jinabert_abi_version() -> u32 {
    guard_value(ABI_VERSION, || ABI_VERSION)
}

/// Returns the version of the library, such as "0.1.0".
///
/// Memory: the string is static; do not free it.
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn jinabert_version() -> *const c_char {
    guard_value(VERSION.as_ptr(), || VERSION.as_ptr())
}
