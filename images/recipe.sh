# shellcheck shell=bash
# Shell functions that every recipe here shares; sourced, not run. A recipe's output lives in the cache, outside of the
# tree, in a directory that is named after everything it was made from: to change an input is to build anew, and what
# has been built once is not built twice.

set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

# shellcheck disable=SC2034  # used by the recipes
cache=${SECOVIA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/secovia}

# Progress goes to standard error; standard output holds the one line that a caller reads.
say() { printf '%s: %s\n' "${recipe:?}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# need PROGRAM PACKAGE: says which Debian package to install where a program is missing.
need() { command -v "$1" >/dev/null || die "$1 is missing; install the Debian package $2"; }

# key: the first 16 hex digits of the hash of standard input.
key() { sha256sum | cut -c1-16; }

# package_version NAME...: the versions of installed Debian packages, one a line; fails where one is missing.
package_version() {
    dpkg-query -W -f '${Package}=${Version}\n' "$@" 2>/dev/null || die "install the Debian packages: $*"
}

# in_cache DIRECTORY FUNCTION: prints DIRECTORY, which FUNCTION fills where it does not exist yet. FUNCTION runs in a
# scratch directory and leaves its results in ./out; what fails leaves nothing behind. Two callers at once: one builds,
# the other waits.
in_cache() {
    local target=$1 make=$2
    mkdir -p "$(dirname "$target")"
    exec 9>"$target.lock"
    flock 9
    if [ ! -d "$target" ]; then
        scratch=$(mktemp -d "$target.XXXXXX")
        trap 'rm -rf "$scratch"' EXIT
        mkdir "$scratch/out"
        (cd "$scratch" && "$make") >&2
        mv "$scratch/out" "$target"
        rm -rf "$scratch"
        trap - EXIT
    fi
    exec 9>&-
    printf '%s\n' "$target"
}
