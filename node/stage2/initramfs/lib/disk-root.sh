# The root on a disk of this machine: koguma.root=UUID=… of the kernel command line, which the disk's boot loader gives.
# Nobody else need be there: what the node is stands in the root itself, below /var/lib/koguma.
# shellcheck shell=sh

KOGUMA_DISK_WAIT_TENTHS=600

# Prints the UUID of the root that this kernel was told to boot; nothing when stage 1 started it.
koguma_disk_root() {
    # shellcheck disable=SC2013
    for word in $(cat /proc/cmdline); do
        case $word in koguma.root=UUID=*) echo "${word#koguma.root=UUID=}" ;; esac
    done
}

# koguma_mount_disk UUID: mounts the root below $rootmnt and takes what it kept of the node to $KOGUMA_RUN.
koguma_mount_disk() {
    tries=0
    until device=$(blkid -l -t "UUID=$1" -o device) && [ -b "$device" ]; do
        tries=$((tries + 1))
        if [ $tries -ge $KOGUMA_DISK_WAIT_TENTHS ]; then
            echo "koguma: the root's disk must appear within a minute, got no file system with UUID $1" >/dev/console
            koguma_reboot
        fi
        sleep 0.1
    done
    # A journal that was cut off by a power failure is replayed by the mount; errors that need more are fsck's, by fstab.
    if ! mount -t ext4 -o rw "$device" "${rootmnt:?init sets it}"; then
        echo "koguma: the root must be mountable as ext4 ($device)" >/dev/console
        koguma_reboot
    fi
    mkdir -p -m 0700 "$KOGUMA_RUN"
    if [ -f "$rootmnt/var/lib/koguma/boot.env" ]; then
        (umask 077 && cp "$rootmnt/var/lib/koguma/boot.env" "$rootmnt/var/lib/koguma/detail.json" "$KOGUMA_RUN/")
        . "$KOGUMA_RUN/boot.env"
        : >"$KOGUMA_RUN/rendered"
    fi
}
