//! The `jinabert` command; everything is in [`jinabert::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(unix, not(target_vendor = "apple")))]
    silence_wayland();
    jinabert::cli::main()
}

/// Gives libwayland a directory where there is none: it writes two lines to stderr otherwise,
/// whoever asks.  Mesa's layer that puts Vulkan devices in order does, at every start, for the
/// device that draws the desktop.  Nothing can be below /dev/null, so no desktop is found, as
/// before.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[allow(unsafe_code)]
fn silence_wayland() {
    const NAME: &str = "XDG_RUNTIME_DIR";
    let is_set = std::env::var_os(NAME).is_some_and(|dir| std::path::Path::new(&dir).is_absolute());
    if !is_set {
        // SAFETY: this is the only thread.
        unsafe { std::env::set_var(NAME, "/dev/null") }
    }
}
