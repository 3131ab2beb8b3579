//! Choice of the kernel compiler on Direct3D 12: DXC if available, else Windows' own FXC.
//!
//! FXC takes up to 20 times as long.  `WGPU_DX12_COMPILER` (`fxc`, `dxc`, `staticdxc`) has
//! priority; otherwise a `dxcompiler.dll` next to the program, or in a directory of `PATH`, is
//! used.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Library file of DXC.
const DXC: &str = "dxcompiler.dll";

/// Direct3D 12 options with the best compiler of this machine.
pub(super) fn options() -> wgpu::Dx12BackendOptions {
    let shader_compiler = compiler(wgpu::Dx12Compiler::from_env(), find());
    wgpu::Dx12BackendOptions { shader_compiler, ..Default::default() }
}

/// Options with FXC, which every Windows has, unless the user chose a compiler: for a machine whose
/// DXC cannot be loaded.
pub(super) fn plain() -> Option<wgpu::Dx12BackendOptions> {
    let chosen = wgpu::Dx12Compiler::from_env().is_some() || !cfg!(windows);
    let shader_compiler = wgpu::Dx12Compiler::Fxc;
    (!chosen).then(|| wgpu::Dx12BackendOptions { shader_compiler, ..Default::default() })
}

/// Human-readable name of the compiler.
pub(super) fn name(options: &wgpu::Dx12BackendOptions) -> String {
    match &options.shader_compiler {
        wgpu::Dx12Compiler::Fxc => "FXC".to_owned(),
        wgpu::Dx12Compiler::DynamicDxc { dxc_path } => format!("DXC, {dxc_path}"),
        wgpu::Dx12Compiler::StaticDxc => "DXC, built in".to_owned(),
        wgpu::Dx12Compiler::Auto => "DXC or FXC".to_owned(),
    }
}

fn compiler(asked: Option<wgpu::Dx12Compiler>, found: Option<PathBuf>) -> wgpu::Dx12Compiler {
    match (asked, found) {
        (Some(asked), _) => asked,
        (None, Some(path)) => {
            wgpu::Dx12Compiler::DynamicDxc { dxc_path: path.to_string_lossy().into_owned() }
        }
        (None, None) => wgpu::Dx12Compiler::Fxc,
    }
}

/// Finds DXC next to the program, or in `PATH`.
fn find() -> Option<PathBuf> {
    if !cfg!(windows) {
        return None;
    }
    let program = env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    first_with(beside.into_iter().chain(env::split_paths(&path)))
}

/// First of some directories with the library.  Relative ones are skipped: a library in the current
/// directory must not be loaded.
fn first_with(directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let mut files = directories.filter(|dir| dir.is_absolute()).map(|dir| dir.join(DXC));
    files.find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_decides_then_what_is_there() {
        let chosen = |asked, found: Option<&str>| {
            let shader_compiler = compiler(asked, found.map(PathBuf::from));
            name(&wgpu::Dx12BackendOptions { shader_compiler, ..Default::default() })
        };
        assert_eq!(chosen(None, None), "FXC");
        assert_eq!(chosen(None, Some("/a/dxcompiler.dll")), "DXC, /a/dxcompiler.dll");
        assert_eq!(chosen(Some(wgpu::Dx12Compiler::Fxc), Some("/a/dxcompiler.dll")), "FXC");
        let asked = Some(wgpu::Dx12Compiler::default_dynamic_dxc());
        assert_eq!(chosen(asked, None), "DXC, dxcompiler.dll");
    }

    #[test]
    fn dxc_is_looked_for_in_absolute_directories() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dirs = ["empty", "there", "also"].map(|name| root.path().join(name));
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).expect("a directory"));
        std::fs::create_dir(dirs[0].join(DXC)).expect("a directory, no library");
        for dir in &dirs[1..] {
            std::fs::write(dir.join(DXC), b"").expect("a file");
        }
        let with = |dirs: &[PathBuf]| first_with(dirs.iter().cloned());
        assert_eq!(with(&dirs), Some(dirs[1].join(DXC)));
        assert_eq!(with(&dirs[..1]), None);
        assert_eq!(with(&[PathBuf::from("."), PathBuf::new()]), None);
    }
}
