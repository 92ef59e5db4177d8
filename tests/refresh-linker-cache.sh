#!/bin/sh
# refresh-linker-cache.sh DIR: lets the dynamic linker find libsender.so in DIR by its bare name.
set -eu
ldconfig=$(command -v ldconfig || echo /sbin/ldconfig)
if [ "$(id -u)" = 0 ] && [ -x "$ldconfig" ]; then
    "$ldconfig"
fi
if "$ldconfig" -p 2>/dev/null | grep -q "libsender.so .*=> $1/libsender.so"; then
    echo "LD_PRELOAD=libsender.so is found by name"
else
    echo "the dynamic linker does not search $1: use LD_PRELOAD=$1/libsender.so, or run ldconfig as root with $1 in /etc/ld.so.conf.d"
fi
