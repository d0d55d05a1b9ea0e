#!/bin/sh
# As the entry point of registry:2 and registry:3 does: a configuration means serve, a command or an option is
# registry's, and anything else is a program of the image.
set -e

case "$1" in
  *.yaml | *.yml) set -- registry serve "$@" ;;
  help) set -- registry --help ;;
  serve | garbage-collect | doctor | upstreams | prefetch | healthcheck | check-config | -*) set -- registry "$@" ;;
esac

exec "$@"
