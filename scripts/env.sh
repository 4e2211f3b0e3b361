# shellcheck shell=bash
# Sourced, not run. Puts the Go that scripts/setup may have unpacked first in
# PATH, and the system folders that an ordinary user's PATH lacks last.
NOVACRON_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export NOVACRON_ROOT
if [[ -x $NOVACRON_ROOT/.cache/go/bin/go ]]; then
    PATH=$NOVACRON_ROOT/.cache/go/bin:$PATH
    # The unpacked tree is a complete Go; it must not look for another.
    export GOTOOLCHAIN=local
fi
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
