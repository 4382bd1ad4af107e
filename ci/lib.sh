# shellcheck shell=bash
# Helpers that the scripts of ci/ share. Sourced, never run.
#
# Progress and errors go to standard error, results to standard output, so that a script's output can be read by another.

TREE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
SCRIPT=$(realpath -s --relative-base="$TREE" -- "$0")
# The target that .cargo/config.toml names; binaries lie below a folder of this name.
RUST_TARGET=x86_64-unknown-linux-gnu

# say MESSAGE...: one progress line with the time since the script began.
say() {
    printf '%s [%3d s] %s\n' "$SCRIPT" "$SECONDS" "$*" >&2
}

# die MESSAGE...: one line that says what failed, on what, and what to do; then end with status 1.
die() {
    printf '%s: %s\n' "$SCRIPT" "$*" >&2
    exit 1
}

# usage_error MESSAGE...: the command line was wrong; status 2.
usage_error() {
    printf '%s: %s (see %s --help)\n' "$SCRIPT" "$*" "$0" >&2
    exit 2
}

# print_help: the comment block at the head of the running script is its help.
print_help() {
    sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p}' "$0"
}

# need_value OPTION COUNT: COUNT words are left after OPTION; it takes a value.
need_value() {
    [ "$2" -ge 1 ] || usage_error "$1 needs a value"
}

# need TOOL...: each tool is there, or say what installs it.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "$tool is not installed: run ci/packages as root"
    done
}

# cache_dir: where long builds are kept, outside of the tree.
cache_dir() {
    printf '%s\n' "${SECOVIA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/secovia}"
}

# target_dir: where cargo puts what it builds.
target_dir() {
    printf '%s\n' "${CARGO_TARGET_DIR:-$TREE/target}"
}

# binary PROFILE NAME: the path of a built program.
binary() {
    printf '%s/%s/%s/%s\n' "$(target_dir)" "$RUST_TARGET" "$1" "$2"
}

# hash_of FILE...: one short digest over the contents of files, whatever they are called and wherever they lie.
hash_of() {
    cat -- "$@" | sha256sum | cut -c1-16
}

# make_work_dir: a temporary folder in WORK_DIR, gone when the script ends, however it ends.
make_work_dir() {
    WORK_DIR=$(mktemp -d "${TMPDIR:-/tmp}/secovia-${SCRIPT##*/}.XXXXXX")
    trap 'rm -rf -- "$WORK_DIR"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# quietly LOG COMMAND...: run it with its output in LOG; where it fails show the log's end and hand the status back.
quietly() {
    local log=$1 status=0
    shift
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 40 -- "$log" >&2
        printf '%s: status %d from: %s (whole log: %s)\n' "$SCRIPT" "$status" "$*" "$log" >&2
    fi
    return "$status"
}

# kvm_is_fast: this machine's KVM runs Linux at hardware speed (a KVM that emulates is there, but boots nothing big).
# The VMM's own probe tells; it is built where it is not there yet.
kvm_is_fast() {
    [ -r /dev/kvm ] && [ -w /dev/kvm ] || return 1
    cargo build --quiet --locked --release --manifest-path "$TREE/Cargo.toml" -p secovia-vmm >&2 || return 1
    "$(binary release secovia-vmm)" --probe 2>/dev/null | jq -e .hardware_speed >/dev/null
}

# build_release: our programs, optimised.
build_release() {
    cargo build --quiet --locked --release --manifest-path "$TREE/Cargo.toml" \
        -p secovia-vmm -p secovia-jailer -p secovia-agent -p secovia-cli -p secovia-init -p secovia-pool >&2
}

# build_back_door: the VMM with a device that hands its process to the guest, and the jailer, for tests that break out;
# exports where they are.
build_back_door() {
    cargo build --quiet --locked --manifest-path "$TREE/Cargo.toml" -p secovia-jailer >&2
    cargo build --quiet --locked --manifest-path "$TREE/Cargo.toml" -p secovia-vmm --features back-door \
        --bin secovia-vmm-back-door >&2
    SECOVIA_VMM_BACK_DOOR=$(binary debug secovia-vmm-back-door)
    SECOVIA_JAILER=${SECOVIA_JAILER:-$(binary debug secovia-jailer)}
    export SECOVIA_VMM_BACK_DOOR SECOVIA_JAILER
}

# guest_assets: makes the guest's kernel, initrd and images, or takes them from the cache, and exports where all that a
# Linux guest needs is found: the variables that `ci/test --help` lists.
guest_assets() {
    local folder lab
    folder=$("$TREE/images/kernel/build")
    export SECOVIA_KERNEL=$folder/vmlinux SECOVIA_BZIMAGE=$folder/bzImage
    folder=$("$TREE/images/initrd")
    export SECOVIA_INITRD=$folder/initrd
    SECOVIA_IMAGE_BASE=$("$TREE/images/build" base)
    SECOVIA_IMAGE_WEB=$("$TREE/images/build" web)
    export SECOVIA_IMAGE_BASE SECOVIA_IMAGE_WEB
    lab=$("$TREE/ci/lab.d/build")
    export SECOVIA_DEBIAN_KERNEL=$lab/vmlinuz SECOVIA_REPORT_INITRD=$lab/report.initrd
    SECOVIA_VMM=$(binary release secovia-vmm)
    SECOVIA_JAILER=$(binary release secovia-jailer)
    SECOVIA_AGENT=$(binary release secovia-agent)
    SECOVIA_CLI=$(binary release secovia)
    export SECOVIA_VMM SECOVIA_JAILER SECOVIA_AGENT SECOVIA_CLI
}
