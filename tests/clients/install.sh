#!/bin/sh
# Install the Debian packages that `make clients` and `make image-test` drive, and only those whose command is missing: a
# docker client or a containerd that the machine already has stays as it is. The Go tools (crane, oras, regctl, ...) come
# by `make tools`.
#
# No service is started: the tests run daemons of their own, and a dockerd of the distribution would rewrite the
# machine's firewall rules as soon as its package is unpacked.
set -eu

PATH=$PATH:/usr/sbin:/sbin
packages=

# want COMMAND PACKAGE...: the first package that this release of Debian or Ubuntu has brings the command.
want() {
  command -v "$1" >/dev/null 2>&1 && return 0
  shift
  for package; do
    if apt-cache show "$package" >/dev/null 2>&1; then
      packages="$packages $package"
      return 0
    fi
  done
  echo "$0: none of these packages is known to apt: $*" >&2
  return 1
}

if [ "$(id -u)" != 0 ]; then
  echo "$0: installing packages needs root: sudo $0" >&2
  exit 1
fi
command -v apt-get >/dev/null || { echo "$0: knows only apt; install docker, containerd and skopeo yourself" >&2; exit 1; }

# Without package lists (a fresh container image) apt knows no package at all.
apt-cache show skopeo >/dev/null 2>&1 || apt-get -q -o DPkg::Lock::Timeout=300 update

want dockerd docker.io
want docker docker-cli docker.io # Debian 13 split the client off
want containerd containerd
want ctr containerd
want runc runc
want skopeo skopeo
want podman podman
want buildah buildah
want docker-registry docker-registry
want mmdebstrap mmdebstrap
want gpg gpg # mmdebstrap asks it which key signs the release
# docker's plugin, or a docker-compose of any age: it is 1.29 in Debian 12.
docker compose version >/dev/null 2>&1 || want docker-compose docker-compose-v2 docker-compose
# The root file system of the images that we build: a busybox with shared libraries would not start there.
ldd "$(command -v busybox)" 2>&1 | grep -q 'not a dynamic' || want busybox-static busybox-static

[ -n "$packages" ] || { echo "clients: every package is installed"; exit 0; }
echo "clients: installing$packages"

if [ ! -e /usr/sbin/policy-rc.d ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d # 101: "action forbidden", Debian's way to say "do not start"
  chmod 755 /usr/sbin/policy-rc.d
fi
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $packages
