#!/bin/sh
# install-criu.sh [auto|packages|source]: a criu that passes `criu check` here, from the distribution's packages only.
#
# auto tries three ways and says which one it took:
#   1. the criu that is installed, or the distribution's package;
#   2. the packages of a later release, unpacked beside the system and started with their own loader and libraries;
#   3. the source package of a later release, built here.
# Leaves it as $CRIU_PREFIX/criu (default /usr/local/lib/posthaste), where criu-bridge looks first.
set -eu

prefix=${CRIU_PREFIX:-/usr/local/lib/posthaste}
way=${1:-auto}
criu=$prefix/criu

say() { echo "install-criu: $*" >&2; }
fail() { say "$*"; exit 1; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }
version_of() { "$1" --version | sed -n 's/^Version: *//p'; }
# From Linux 6.16 on an older one cannot read the options of network sockets, which 'criu check' does not tell.
knows_sockets() { ! at_least 6.16 "$(uname -r)" || at_least 4.2 "$(version_of "$1")"; }
works() { "$1" check >/dev/null 2>&1 && knows_sockets "$1"; }
finish() { say "$1: criu $(version_of "$criu") as $criu"; exit 0; }

case $way in
    auto | packages | source) ;;
    *) echo "usage: install-criu.sh [auto|packages|source]" >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || fail "criu restores processes as root only: run this as root"
[ "$way" != auto ] || [ ! -x "$criu" ] || ! works "$criu" || finish "it is there already"
command -v apt-get >/dev/null || fail "no apt-get here: install criu 4.1 or newer and name it with --criu PATH"
mkdir -p "$prefix"

# The first way.
if [ "$way" = auto ]; then
    command -v criu >/dev/null ||
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends criu >/dev/null 2>&1 || true
    if own=$(command -v criu) && works "$own"; then
        ln -sfn "$own" "$criu"
        finish "the distribution's own"
    fi
    say "${own:-no criu package} does not pass 'criu check', or is too old for network sockets, on kernel $(uname -r)"
fi

. /etc/os-release
case ${ID:-}:${VERSION_CODENAME:-} in
    debian:bookworm) releases="trixie sid" ;;
    debian:*) releases="sid" ;;
    ubuntu:*) releases="resolute" ;;
    *) fail "no later release is known for ${PRETTY_NAME:-this system}: install criu 4.1 or newer by hand" ;;
esac
case $ID in
    debian) components="main" ;;
    ubuntu) components="main universe" ;;
esac
keyring=/usr/share/keyrings/$ID-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep "/$ID/\?\$" | head -n 1)
[ -n "$mirror" ] || fail "apt names no mirror of $ID"

# An apt of our own, which knows one later release and nothing of this system: it downloads and never installs.
private_apt() {
    apt=$prefix/apt-$1
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/empty"
    for kind in deb deb-src; do
        echo "$kind [signed-by=$keyring] $mirror $1 $components"
    done >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/empty";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$apt/empty";
Dir::State::lists "$apt/lists";
Dir::State::status "/dev/null";
Dir::Cache::archives "$apt/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
CONF
    APT_CONFIG=$apt/apt.conf apt-get -qq update >/dev/null 2>&1
}

# The second way.
unpack() {
    packages=$(APT_CONFIG=$apt/apt.conf apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
        --no-breaks --no-replaces --no-enhances criu | grep '^[a-z]' |
        grep -v -E '^(debconf|cdebconf|perl|dpkg|tar|install-info|base-files)' | sort -u)
    root=$prefix/root-$1
    rm -rf "$root"
    mkdir -p "$root"
    (cd "$apt/archives" && APT_CONFIG=$apt/apt.conf apt-get -qq download $packages >/dev/null 2>&1) || return 1
    for package in "$apt"/archives/*.deb; do
        dpkg -x "$package" "$root" || return 1
    done
    loader=$(find "$root" -path '*linux-gnu*' -name 'ld-linux*.so.*' | head -n 1)
    [ -n "$loader" ] || return 1
    rm -f "$criu"
    cat >"$criu" <<WRAPPER
#!/bin/sh
exec "$loader" --library-path "$(dirname "$loader")" --argv0 criu "$root/usr/sbin/criu" "\$@"
WRAPPER
    chmod 755 "$criu"
    works "$criu"
}

# The third way.
build() {
    version=$(APT_CONFIG=$apt/apt.conf apt-cache showsrc criu 2>/dev/null | sed -n 's/^Version: //p' | sort -V | tail -n 1)
    [ -n "$version" ] || return 1
    source=$prefix/source-$1
    rm -rf "$source"
    mkdir -p "$source"
    (cd "$apt/archives" &&
        APT_CONFIG=$apt/apt.conf apt-get -qq source --download-only --tar-only "criu=$version" >/dev/null 2>&1 &&
        tar -xf criu_*.orig.tar.* -C "$source" --strip-components=1) || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends build-essential pkg-config \
        protobuf-c-compiler protobuf-compiler libprotobuf-c-dev libprotobuf-dev libcap-dev libnl-3-dev libnet1-dev \
        libbsd-dev libgnutls28-dev libnftables-dev uuid-dev >/dev/null
    make -C "$source" -j"$(nproc)" criu >"$prefix/build.log" 2>&1 || {
        say "building criu $version failed; the end of $prefix/build.log:"
        tail -n 5 "$prefix/build.log" >&2
        return 1
    }
    rm -f "$criu"
    install -m 755 "$source/criu/criu" "$criu"
    works "$criu"
}

for release in $releases; do
    private_apt "$release" || continue
    if [ "$way" != source ] && unpack "$release"; then
        rm -rf "$apt"
        finish "the packages of $release with their own libraries"
    fi
done
for release in $releases; do
    [ "$way" != packages ] || break
    private_apt "$release" || continue
    if build "$release"; then
        rm -rf "$apt" "$source"
        finish "built from the source of $release"
    fi
done
fail "no way led to a criu that passes 'criu check' on kernel $(uname -r); run it by hand to see why"
