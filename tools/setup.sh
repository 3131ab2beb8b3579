# Functions that install what building and testing need on Debian or Ubuntu, and nothing that is there already.
# Sourced by ./demo and ./check.  With JINABERT_NO_INSTALL=1 they only name what is missing.

say() { printf '\n== %s\n' "$*" >&2; }

install() { # why, packages
    local why=$1
    shift
    if [ -n "${JINABERT_NO_INSTALL:-}" ] || ! command -v apt-get >/dev/null; then
        say "$why: install $* (or what your system calls them) and run this again"
        return 1
    fi
    say "$why: installing $*"
    local root=
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get update -qq && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

need_cargo() {
    command -v cargo >/dev/null || { say "no cargo: see https://rustup.rs"; return 1; }
    local minor
    minor=$(rustc --version | sed -E 's/^rustc 1\.([0-9]+).*/\1/')
    [ "$minor" -ge 89 ] || { say "$(rustc --version) is too old: 1.89 or newer is needed"; return 1; }
    command -v cc >/dev/null || install "no linker" gcc libc6-dev
}

# A Vulkan loader and a driver: the machine's own, or Mesa's software driver if there is none.
need_vulkan() {
    case $(uname -s) in Linux) ;; *) return 0 ;; esac
    local drivers=(/usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json)
    local loader
    loader=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -c libvulkan.so.1 || true)
    if [ "$loader" = 0 ] || ! cat "${drivers[@]}" 2>/dev/null | grep -q library_path; then
        install "no Vulkan driver, so Mesa's software one (lavapipe) will stand in for a GPU" \
            libvulkan1 mesa-vulkan-drivers
    fi
    # Mesa's device selection prints warnings without this directory, as outside of desktop sessions.
    [ -n "${XDG_RUNTIME_DIR:-}" ] || export XDG_RUNTIME_DIR=/tmp
}

# The software drivers of the tests: lavapipe, and SwiftShader from Debian's chromium-common package.
need_test_drivers() {
    local lavapipe=/usr/share/vulkan/icd.d/lvp_icd.$(uname -m).json
    [ -e "$lavapipe" ] || install "the tests run on lavapipe" libvulkan1 mesa-vulkan-drivers || return 1
    local dir=$PWD/target/swiftshader
    local swiftshader=$dir/usr/lib/chromium/vk_swiftshader_icd.json
    if [ ! -e "$swiftshader" ]; then
        say "the tests run on SwiftShader too: unpacking it from Debian's chromium-common"
        mkdir -p "$dir"
        local root=
        [ "$(id -u)" = 0 ] || root=sudo
        (cd "$dir" && { apt-get download -qq chromium-common 2>/dev/null ||
            { $root apt-get update -qq && apt-get download -qq chromium-common; }; } &&
            dpkg -x chromium-common_*.deb . && rm chromium-common_*.deb) || return 1
    fi
    export VK_DRIVER_FILES=$lavapipe:$swiftshader
    export JINABERT_REQUIRE=vulkan-llvmpipe,vulkan-swiftshader
}

# Compilers and tools for the tests of the C interface.
need_c() {
    case $(uname -s) in Linux) ;; *) return 0 ;; esac
    local tool
    for tool in cc c++ nm valgrind cmake pkg-config; do
        command -v "$tool" >/dev/null || {
            install "the tests of the C interface use gcc, valgrind, CMake and pkg-config" \
                gcc g++ binutils valgrind cmake make pkg-config
            return
        }
    done
}

# Python, for the tests of the server, the wheel, the compilers and the documentation.
need_python() {
    python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        install "the tests use Python 3.11 or newer" python3 python3-venv
}
