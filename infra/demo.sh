#!/bin/sh
# The main job, from nothing: a disk image with a real file system, backed up encrypted to two storages, changed, backed up
# again, both versions restored and compared. Everything happens in a temporary folder; KEEP=1 leaves it there.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
ashlar=$root/bin/ashlar
# mke2fs and debugfs lie in /usr/sbin, which is not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d "${TMPDIR:-/tmp}/ashlar-demo.XXXXXX")
cleanup() {
  if [ -n "${KEEP:-}" ]; then echo "Left in $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }

if ! command -v mke2fs >/dev/null 2>&1; then
  echo "mke2fs is missing: apt-get install e2fsprogs" >&2
  exit 69
fi

say "A 256 MiB disk image with an ext4 file system"
mkdir "$work/files"
cp -R "$root/docs" "$root/lib" "$root/services" "$work/files/"
mke2fs -q -t ext4 -d "$work/files" "$work/disk.img" 256M

say "A repository with two storages"
"$ashlar" init "$work/repository" --block-size 256KiB \
  --storage "here=file://$work/site-a" --storage "there=file://$work/site-b" --quiet

export ASHLAR_CONFIG="$work/repository"
say "First backup"
first=$("$ashlar" backup "$work/disk.img" disk | tail -n 1)
cp --sparse=always "$work/disk.img" "$work/before.img"

say "The disk changes, and is backed up again"
printf 'a new file\n' > "$work/note"
debugfs -w -R "write $work/note note" "$work/disk.img" >/dev/null 2>&1
second=$("$ashlar" backup "$work/disk.img" disk | tail -n 1)

say "Both versions are restored and compared"
"$ashlar" restore "$first" "$work/first.img" --quiet
"$ashlar" restore "$second" "$work/second.img" --quiet --storage there
cmp "$work/before.img" "$work/first.img"
cmp "$work/disk.img" "$work/second.img"
if cmp -s "$work/first.img" "$work/second.img"; then
  echo "the two versions should differ" >&2
  exit 70
fi
echo "Both are equal to what was backed up, byte by byte."

say "What was saved"
"$ashlar" ls
"$ashlar" usage
