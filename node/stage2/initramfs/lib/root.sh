# Mounts: the root image read-only, or a copy of an NFS export, and the writable layer over it.
# shellcheck shell=sh

NFS_ATTEMPTS=10

# mount_root_image FILE: a verified image in memory, or the block device of root method local.
mount_root_image() {
    mkdir -p $KOGUMA_LOWER
    case $KOGUMA_ROOT_FORMAT in
        squashfs | erofs) ;;
        *) fail "KOGUMA_ROOT_FORMAT must be squashfs or erofs, got '$KOGUMA_ROOT_FORMAT' (boot.env)" ;;
    esac
    options=ro
    [ -b "$1" ] || options=ro,loop
    mount -t "$KOGUMA_ROOT_FORMAT" -o "$options" "$1" $KOGUMA_LOWER || fail "$1 cannot be mounted as $KOGUMA_ROOT_FORMAT"
}

# copy_root_from_nfs: the export's files into a tmpfs, which is the lower layer; the export is let go.
copy_root_from_nfs() {
    server=${KOGUMA_NFS%%:*}
    mkdir -p /koguma-nfs $KOGUMA_LOWER
    modprobe -abq nfsv4 nfs
    attempt=0
    until mount -i -t nfs4 -o "ro,vers=4.2,addr=$server,clientaddr=${KOGUMA_ADDRESS%/*}" "$KOGUMA_NFS" /koguma-nfs; do
        attempt=$((attempt + 1))
        [ $attempt -lt $NFS_ATTEMPTS ] || fail "the NFS export must be mountable, got an error $attempt times ($KOGUMA_NFS)"
        sleep 2
    done
    # tmpfs counts pages, not compressed bytes; half of memory is left to whoever runs on the machine.
    mount -t tmpfs -o mode=0755,size=50% koguma-image $KOGUMA_LOWER
    /usr/lib/koguma/cp -a /koguma-nfs/. $KOGUMA_LOWER/ 2>/run/koguma/copy.log ||
        fail "the NFS root cannot be copied into memory: $(tail -n 1 /run/koguma/copy.log) ($KOGUMA_NFS)"
    umount /koguma-nfs
    mount -o remount,ro $KOGUMA_LOWER
}

# lay_overlay TARGET
lay_overlay() {
    mkdir -p $KOGUMA_OVERLAY
    mount -t tmpfs -o "mode=0755,size=$KOGUMA_OVERLAY_SIZE_BYTES" koguma-overlay $KOGUMA_OVERLAY
    mkdir -p $KOGUMA_OVERLAY/upper $KOGUMA_OVERLAY/work
    mount -t overlay -o "lowerdir=$KOGUMA_LOWER,upperdir=$KOGUMA_OVERLAY/upper,workdir=$KOGUMA_OVERLAY/work" \
        koguma-root "$1" || fail "the overlay cannot be mounted"
}
