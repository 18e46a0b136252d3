#!/bin/sh
# Says in one line what is missing on this machine that pip cannot bring. Usage: check_system.sh PYTHON
python=${1:-python3}
packages=""
command -v cmake >/dev/null 2>&1 || packages="$packages cmake"
command -v g++ >/dev/null 2>&1 || packages="$packages g++"
command -v make >/dev/null 2>&1 || packages="$packages make"
if command -v "$python" >/dev/null 2>&1; then
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  case "$version" in
    3.11 | 3.12) ;;
    *) echo "semalign3d: $python is Python $version; Python 3.11 or 3.12 is needed: make setup PYTHON=python3.12" >&2; exit 1 ;;
  esac
  "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    packages="$packages python3-dev"
  "$python" -c 'import venv, ensurepip' 2>/dev/null || packages="$packages python3-venv"
else
  packages="$packages python3 python3-dev python3-venv"
fi
if [ -n "$packages" ]; then
  echo "semalign3d: missing on this machine:$packages; install with: sudo apt-get install$packages" >&2
  exit 1
fi
