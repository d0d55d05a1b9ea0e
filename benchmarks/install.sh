#!/bin/sh
# Install the Debian packages that `make bench` drives, and only those whose command is missing. No service is started:
# the benchmarks run servers of their own.
set -eu

PATH=$PATH:/usr/sbin:/sbin
packages=
command -v wrk >/dev/null 2>&1 || packages="$packages wrk"
command -v nginx >/dev/null 2>&1 || packages="$packages nginx-light"
command -v docker-registry >/dev/null 2>&1 || packages="$packages docker-registry"
[ -n "$packages" ] || { echo "bench: every package is installed"; exit 0; }

if [ "$(id -u)" != 0 ]; then
  echo "$0: installing packages needs root: sudo $0" >&2
  exit 1
fi
command -v apt-get >/dev/null || { echo "$0: knows only apt; install$packages yourself" >&2; exit 1; }
# Without package lists (a fresh container image) apt knows no package at all.
apt-cache show wrk >/dev/null 2>&1 || apt-get -q -o DPkg::Lock::Timeout=300 update

if [ ! -e /usr/sbin/policy-rc.d ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # 101: "action forbidden", Debian's way to say "do not start"
  chmod 755 /usr/sbin/policy-rc.d
fi
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $packages
