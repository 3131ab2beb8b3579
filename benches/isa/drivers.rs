//! Target chips, and the drivers that compile for them without the hardware.

use std::{
    env,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
};

/// Mesa driver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// AMD: the driver used on Linux.
    Radv,
    /// Intel: the driver used on Linux.
    Anv,
    /// NVIDIA: Mesa's compiler, not NVIDIA's.
    Nvk,
    /// Adreno: Mesa's compiler, not Qualcomm's.
    Turnip,
    /// Mali: Mesa's compiler, not Arm's.
    Panvk,
}

/// Chip family.
pub struct Family {
    /// Name in tables.
    pub name: &'static str,
    /// Driver.
    pub kind: Kind,
    /// Names of the chip in the releases of the driver.
    pub values: &'static [&'static str],
}

const fn family(name: &'static str, kind: Kind, values: &'static [&'static str]) -> Family {
    Family { name, kind, values }
}

/// RDNA 2 and 3; Arc, Alder Lake's and Lunar Lake's graphics; Turing and Ampere; Adreno 630 and
/// 740; Mali-G52 and G610.
pub const FAMILIES: &[Family] = &[
    family("navi21", Kind::Radv, &["navi21"]),
    family("gfx1100", Kind::Radv, &["gfx1100", "navi31"]),
    family("dg2", Kind::Anv, &["dg2"]),
    family("adl", Kind::Anv, &["adl"]),
    family("lnl", Kind::Anv, &["lnl"]),
    family("tu102", Kind::Nvk, &["162"]),
    family("ga102", Kind::Nvk, &["172"]),
    family("a630", Kind::Turnip, &["630"]),
    family("a740", Kind::Turnip, &["740"]),
    family("g52", Kind::Panvk, &["7402"]),
    family("g610", Kind::Panvk, &["a867"]),
];

/// Directories of the driver lists in distributions.
const DRIVERS: &[&str] = &["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// Environment variable: directory of Debian 13's drivers and the shims of `tools/compilers/setup`.
const COMPILERS: &str = "JINABERT_COMPILERS";

impl Kind {
    /// Name in messages and in `JINABERT_REQUIRE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Radv => "radv",
            Self::Anv => "anv",
            Self::Nvk => "nvk",
            Self::Turnip => "turnip",
            Self::Panvk => "panvk",
        }
    }

    /// Environment variable that names the chip.
    fn variable(self) -> &'static str {
        match self {
            Self::Radv => "RADV_FORCE_FAMILY",
            Self::Anv => "INTEL_STUB_GPU_PLATFORM",
            Self::Nvk => "NOUVEAU_CHIPSET",
            Self::Turnip => "FD_GPU_ID",
            Self::Panvk => "PAN_GPU_ID",
        }
    }

    /// Entry in the Vulkan loader's list of drivers, and the library that replaces the kernel's
    /// driver, relative to the directory of Debian 13.
    fn files(self) -> [&'static str; 2] {
        match self {
            Self::Radv => ["usr/share/vulkan/icd.d/radeon_icd.json", ""],
            Self::Anv => {
                ["usr/share/vulkan/icd.d/intel_icd.json", "shims/libintel_noop_drm_shim.so"]
            }
            Self::Nvk => {
                ["usr/share/vulkan/icd.d/nouveau_icd.json", "shims/libnouveau_noop_drm_shim.so"]
            }
            Self::Turnip => ["shims/freedreno_icd.json", "shims/libfreedreno_noop_drm_shim.so"],
            Self::Panvk => ["shims/panfrost_icd.json", "shims/libpanfrost_noop_drm_shim.so"],
        }
    }

    /// Command that runs this program again with the driver.
    ///
    /// # Errors
    /// Name of the missing component.
    pub fn command(self) -> Result<Command, String> {
        let program = env::current_exe().map_err(|e| e.to_string())?;
        if self == Self::Radv {
            let icd = installed().ok_or_else(|| {
                format!("no RADV (Mesa's driver for AMD, radeon_icd.*.json) in {DRIVERS:?}")
            })?;
            let mut command = Command::new(program);
            command.env("VK_DRIVER_FILES", icd);
            return Ok(command);
        }
        let compilers = env::var_os(COMPILERS).map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/compilers"),
            PathBuf::from,
        );
        let debian = compilers.join("trixie");
        let [icd, shim] = self.files().map(|file| debian.join(file));
        for file in [&icd, &shim] {
            if !file.exists() {
                return Err(format!("no `{}`: see tools/compilers/setup", file.display()));
            }
        }
        // The loader of Debian 13, so that its libraries run on other systems.
        let mut command = Command::new(debian.join("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(debian.join("usr/lib/x86_64-linux-gnu")).arg(program);
        command.env("VK_DRIVER_FILES", icd).env("LD_PRELOAD", shim);
        command.env("NVK_I_WANT_A_BROKEN_VULKAN_DRIVER", "1");
        command.env("PAN_I_WANT_A_BROKEN_VULKAN_DRIVER", "1");
        Ok(command)
    }

    /// Runs this program to compile for a chip; returns its output.  A driver reads the chip's name
    /// once, from the environment.
    pub fn spawn(self, family: &Family, variable: &str) -> Result<String, String> {
        let mut said = String::new();
        for name in family.values {
            let mut command = self.command()?;
            command
                .args(env::args().skip(1))
                .env(variable, family.name)
                .env(self.variable(), name)
                .env("MESA_SHADER_CACHE_DISABLE", "true")
                .env("NODEVICE_SELECT", "1"); // Mesa's layer that sorts devices, and writes to stderr
            let log = env::temp_dir().join(format!("jinabert-isa-{}.log", std::process::id()));
            if self == Self::Panvk {
                let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
                command.env(LOG, &log).env("BIFROST_MESA_DEBUG", "shaderdb").stderr(file);
            }
            let output = command.output().map_err(|e| e.to_string())?;
            if output.status.success() {
                return String::from_utf8(output.stdout).map_err(|e| e.to_string());
            }
            let stderr = match fs::read_to_string(&log) {
                Ok(logged) if self == Self::Panvk => logged,
                _ => String::from_utf8_lossy(&output.stderr).into_owned(),
            };
            said += &format!("\n{name}: {}: {}", output.status, stderr.trim_end());
        }
        Err(format!("cannot compile for {}{said}", family.name))
    }
}

/// Environment variable of a compiling process: file for the driver's standard error.
const LOG: &str = "JINABERT_ISA_LOG";

/// Length of the driver's standard error so far, if the figures are in it.
pub fn said_until_now(kind: Kind) -> Result<u64, String> {
    if kind == Kind::Panvk {
        Ok(log()?.metadata().map_err(|e| e.to_string())?.len())
    } else {
        Ok(0)
    }
}

/// Standard error of the driver from byte `from` on.
pub fn said(from: u64) -> Result<String, String> {
    let mut file = log()?;
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_string(&mut text));
    read.map(|_| text).map_err(|e| format!("{LOG}: {e}"))
}

fn log() -> Result<File, String> {
    let path = env::var_os(LOG).ok_or_else(|| format!("{LOG} is not set"))?;
    File::open(&path).map_err(|e| format!("{}: {e}", Path::new(&path).display()))
}

/// RADV's entry in this system's list of drivers.
fn installed() -> Option<PathBuf> {
    let names = [format!("radeon_icd.{}.json", env::consts::ARCH), "radeon_icd.json".to_owned()];
    let places = DRIVERS.iter().flat_map(|dir| names.iter().map(move |name| (dir, name)));
    places.map(|(dir, name)| Path::new(dir).join(name)).find(|path| path.exists())
}
