//! Gives the shared library its name for the loader: `libjinabert`, with the ABI's version.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=src/version.rs");
    let source = include_str!("src/version.rs");
    let version =
        source.split("ABI_VERSION: u32 = ").nth(1).and_then(|rest| rest.split(';').next());
    let version = version.expect("the ABI's version in src/version.rs");
    let name = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => format!("-install_name,@rpath/libjinabert.{version}.dylib"),
        Ok("windows") | Err(_) => return,
        Ok(_) => format!("-soname,libjinabert.so.{version}"),
    };
    println!("cargo::rustc-cdylib-link-arg=-Wl,{name}");
}
