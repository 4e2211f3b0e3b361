#!/usr/bin/env bash
# Assembles the boot sectors; the results are checked in, so that building and
# testing need no assembler. Needs binutils.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in bench busy proof tick witness; do
    as --64 "$name.s" -o "$work/$name.o"
    ld -m elf_x86_64 -Ttext 0x7c00 --oformat binary "$work/$name.o" -o "$work/$name.bin"
    size=$(stat -c %s "$work/$name.bin")
    [[ $size == 512 ]] || { echo "$name has $size bytes, want 512" >&2; exit 1; }
    install -m 644 "$work/$name.bin" "$name.bin"
done
