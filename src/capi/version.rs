//! Which interface this is.

use super::status::guard_value;
use std::ffi::{CStr, c_char};

/// The version of the binary interface that this header is of.  It grows when a program that was
/// compiled against an older header would not work any more; new functions, statuses, options and
/// fields at the end of structs with a `size` leave it as it is.
pub const ABI_VERSION: u32 = 1;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version without NUL"),
    };

/// The version of the binary interface that the library was built with.  Where it is not
/// JINABERT_ABI_VERSION, header and library do not belong together: call nothing else.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn jinabert_abi_version() -> u32 {
    guard_value(ABI_VERSION, || ABI_VERSION)
}

/// The version of the library, such as "0.1.0".
///
/// Memory: the string is the library's and lasts as long as the process.
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn jinabert_version() -> *const c_char {
    guard_value(VERSION.as_ptr(), || VERSION.as_ptr())
}
