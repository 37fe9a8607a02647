#!/bin/sh
# Installs Koguma's part of stage 2 into a root file system: install.sh ROOT. Run again, it replaces what it installed.
# The caller makes the initramfs afterwards (update-initramfs in ROOT). No service manager need run in ROOT.
set -eu

root=${1:?usage: install.sh ROOT}
here=$(cd "$(dirname "$0")" && pwd)
[ -d "$root/usr" ] || { echo "ROOT must be a root file system, got $root" >&2; exit 1; }

library=$root/usr/lib/koguma
rm -rf "$library" "$root/usr/share/koguma"
mkdir -p "$library" "$root/usr/share/koguma/initramfs"

for package in "$here/../common/koguma_node" "$here/koguma_stage2"; do
    mkdir "$library/${package##*/}"
    cp "$package"/*.py "$library/${package##*/}/"
done
cp "$here/run" "$library/run"
# Without this, every boot would compile them again, because what a boot writes is forgotten.
chroot "$root" /usr/bin/python3 -m compileall -q /usr/lib/koguma

initramfs=$root/usr/share/initramfs-tools
mkdir -p "$initramfs/hooks" "$initramfs/scripts" "$initramfs/conf.d"
install -m 0755 "$here/initramfs/hooks/koguma" "$initramfs/hooks/koguma"
install -m 0644 "$here/initramfs/scripts/koguma" "$initramfs/scripts/koguma"
install -m 0644 "$here/initramfs/conf.d/koguma" "$initramfs/conf.d/koguma"
install -m 0644 "$here/initramfs/lib/network.sh" "$here/initramfs/lib/disk-root.sh" "$root/usr/share/koguma/initramfs/"
install -m 0755 "$here/initramfs/lib/mount-root" "$root/usr/share/koguma/initramfs/"
install -m 0644 "$here/../common/trace_imports.py" "$root/usr/share/koguma/"

# enable_unit UNIT TARGET: what `systemctl enable` would do.
enable_unit() {
    mkdir -p "$root/etc/systemd/system/$2.wants"
    ln -sf "/usr/lib/systemd/system/$1" "$root/etc/systemd/system/$2.wants/$1"
}

install -d "$root/usr/lib/systemd/system"
install -m 0644 "$here"/systemd/*.service "$root/usr/lib/systemd/system/"
install -d "$root/usr/lib/systemd/system-shutdown"
install -m 0755 "$here/systemd/system-shutdown/koguma" "$root/usr/lib/systemd/system-shutdown/koguma"
enable_unit koguma-report.service multi-user.target
enable_unit koguma-multi-user.service multi-user.target
