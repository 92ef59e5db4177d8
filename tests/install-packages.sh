#!/bin/sh
# install-packages.sh build|test: installs from the distribution what is missing for that purpose.
# Looks for commands first, so a machine that has everything needs neither root nor network.
set -eu

# command:package
build="cc:gcc make:make strip:binutils"
test="$build python3:python3 perl:perl lua5.4:lua5.4 ruby:ruby node:nodejs sqlite3:sqlite3 bc:bc gawk:gawk xz:xz-utils \
gzip:gzip sort:coreutils openssl:openssl redis-server:redis-server memcached:memcached nginx:nginx-light \
java:default-jdk-headless javac:default-jdk-headless musl-gcc:musl-tools readelf:binutils \
setpriv:util-linux unshare:util-linux prlimit:util-linux ip:iproute2 iptables-restore:iptables \
pg_ctlcluster:postgresql tmux:tmux vim:vim"

case "${1:-}" in
    build) wanted=$build ;;
    test) wanted=$test ;;
    *) echo "usage: install-packages.sh build|test" >&2; exit 2 ;;
esac

missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
command -v cargo >/dev/null 2>&1 || {
    echo "cargo is missing: install Rust 1.95 with rustup" >&2
    exit 1
}
[ -n "$missing" ] || exit 0

missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo"
else
    echo "missing packages: ${missing}; as root: apt-get install ${missing}" >&2
    [ "$1" = test ] && exit 0 # the tests that need one of them say so and are skipped
    exit 1
fi
command -v apt-get >/dev/null 2>&1 || {
    echo "missing: ${missing}(Debian's names); install them with this distribution's package manager" >&2
    exit 1
}
echo "installing: $missing"
# A daemon that a package brings along must not start: the tests run their own.
policy=/usr/sbin/policy-rc.d
placed=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    placed=yes
fi
trap '[ -z "$placed" ] || $as_root rm -f "$policy"' EXIT
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
