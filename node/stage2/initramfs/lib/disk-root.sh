# The root on a disk of this machine: koguma.root=UUID=… of the kernel command line, which the disk's boot loader gives;
# koguma.mirror=UUID, too, where it is on an array of two. Nobody else need be there: what the node is stands in the
# root itself, below /var/lib/koguma.
# shellcheck shell=sh

KOGUMA_DISK_WAIT_TENTHS=600
KOGUMA_MIRROR_WAIT_S=15 # for both halves, before one of them must do

# Prints the UUID of the root that this kernel was told to boot; nothing when stage 1 started it.
koguma_disk_root() {
    koguma_argument koguma.root=UUID=
}

# koguma_argument NAME=: prints the value of that word of the kernel command line.
koguma_argument() {
    # shellcheck disable=SC2013
    for word in $(cat /proc/cmdline); do
        case $word in "$1"*) echo "${word#"$1"}" ;; esac
    done
}

koguma_uptime_s() {
    read -r uptime _ </proc/uptime
    echo "${uptime%.*}"
}

# koguma_start_mirror UUID SINCE: when both halves are there, or one of them has waited for the other. Only this array:
# mdadm would wait for both only if it were to start all that it finds.
koguma_start_mirror() {
    halves=$(blkid -t "UUID=$1" -o device | wc -l)
    if [ "$halves" -lt 2 ]; then
        { [ "$halves" -eq 1 ] && [ $(($(koguma_uptime_s) - $2)) -ge $KOGUMA_MIRROR_WAIT_S ]; } || return 0
        echo "koguma: the root's mirror starts with one disk, the other did not appear" >/dev/console
    fi
    modprobe -abq raid1
    MDADM_NO_UDEV=1 mdadm --assemble /dev/md0 --uuid="$1" --run >/dev/console 2>&1 || :
}

# koguma_mount_disk UUID: mounts the root below $rootmnt and takes what it kept of the node to $KOGUMA_RUN.
koguma_mount_disk() {
    tries=0
    since=$(koguma_uptime_s)
    mirror=$(koguma_argument koguma.mirror=)
    until device=$(blkid -l -t "UUID=$1" -o device) && [ -b "$device" ]; do
        [ -z "$mirror" ] || koguma_start_mirror "$mirror" "$since"
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
