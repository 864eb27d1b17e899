# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034
# Shared by the scripts beside it: messages, and Debian packages that are
# installed when they are missing. Source it; it runs nothing by itself.
# Change a package list here and every script follows.

# Each line: package, then why it is needed.
PACKAGES_BUILD='
gcc                 C compiler
libc6-dev           C library headers
pkg-config          finds the libraries below
meson               build system
ninja-build         runs the build
python3             schema generator and scripts
libglib2.0-dev      data structures, errors, logs
libjansson-dev      JSON values for QMP
libgnutls28-dev     TLS, hashes and ciphers
nettle-dev          ciphers that GnuTLS does not show
liburing-dev        io_uring
libpam0g-dev        authz-pam objects
'
# There is no such package for other processors.
if [ "$(uname -m)" = x86_64 ]; then
    PACKAGES_BUILD+='libipsec-mb-dev     AES-GCM on processors with VAES and AVX-512
'
fi
PACKAGES_DEMO='
gnutls-bin          certtool makes the throw-away certificates
qemu-utils          qemu-img, an NBD client
libnbd-bin          nbdcopy and nbdinfo, NBD clients
'
PACKAGES_CHECK='
clang-format        checks the layout of C files
binutils            objdump finds mutable globals
shellcheck          checks shell scripts
pyflakes3           checks Python scripts
python3-pytest      runs functional and interop tests
python3-pytest-xdist  runs them in parallel
python3-pytest-timeout  ends a test that hangs
python3-libnbd      NBD client library of the tests
python3-fusepy      a file system that stops answering
fuse3               mounts it
gnutls-bin          certtool makes test certificates
openssl             encrypts secrets for a test, and is compared with
bsdextrautils       hexdump, in the recipe for that
qemu-utils          qemu-img, qemu-io, qemu-nbd: NBD clients and servers
qemu-system-common  qemu-storage-daemon, the reference
qemu-system-x86     qemu-system-x86_64 mirrors a disk to us
libnbd-bin          nbdinfo, nbdcopy, nbdsh
nbd-client          lists exports
fio                 its nbd engine is one more client
nbdkit              server for our client, and a client
nbd-server          server for our client
tmux                a terminal, for the tests of qmp-shell
procps              looks at processes
util-linux          taskset, mount
'
PACKAGES_LONG='
clang               second compiler, libFuzzer
llvm                coverage of the fuzzers
'
PACKAGES_BENCH='
qemu-utils          qemu-nbd
qemu-system-common  qemu-storage-daemon
nbdkit              server to compare with
nbd-server          server to compare with
libnbd-bin          nbdcopy
gnutls-bin          certtool makes certificates
util-linux          taskset pins server and client
fio                 cold data, by O_DIRECT and as an NBD client
linux-perf          where our time goes
strace              counts system calls
python3-fusepy      a file system that stops answering
fuse3               mounts it
'

say() {
    printf '%s\n' "$*"
}

step() {
    printf '\n==> %s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $* (no sudo here; run this as root first)"
    fi
}

package_is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages LIST...: installs what is missing of the lists above, after
# saying what and why. Does nothing, silently, when all is there.
install_packages() {
    local missing=() name why
    command -v dpkg-query >/dev/null ||
        die "this is not Debian; install by hand: $(package_names "$@")"
    while read -r name why; do
        [ -n "$name" ] || continue
        package_is_installed "$name" && continue
        [ "${#missing[@]}" -gt 0 ] || say "These Debian packages are missing:"
        case " ${missing[*]} " in *" $name "*) continue ;; esac
        printf '    %-22s %s\n' "$name" "$why"
        missing+=("$name")
    done < <(printf '%s\n' "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "Installing them with apt-get."
    # The package lists may be absent or old; refresh them when needed only.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
    as_root apt-get update -qq || die "apt-get update failed"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install: ${missing[*]}"
}

package_names() {
    printf '%s\n' "$@" | awk 'NF { printf "%s ", $1 }'
}

# build DIR MESON-OPTIONS...: sets DIR up once and builds quietly.
# TARGETS limits what is built. Prints the output of a failed build.
build() {
    local dir=$1 log
    shift
    mkdir -p "$dir"
    log="$dir/build-output.txt"
    if [ -f "$dir/build.ninja" ]; then
        meson configure "$dir" "$@" >"$log" 2>&1 || { cat "$log"; return 1; }
    else
        meson setup "$dir" "$TOP" "$@" >"$log" 2>&1 || { cat "$log"; return 1; }
    fi
    # shellcheck disable=SC2086
    ninja -C "$dir" ${TARGETS-} >"$log" 2>&1 || { tail -n 60 "$log"; return 1; }
}
