# Downloads the root image into memory and hashes it while it comes in, on another CPU. Nothing is mounted here.
# shellcheck shell=sh

FETCH_ATTEMPTS=5
FETCH_START_S=30
FETCH_RATE_MIN=2097152 # bytes per second; an attempt that is slower is ended, and the rest asked for anew
RESERVE_BYTES=67108864 # what stage 2 needs besides the image before it can run at all

# fetch_root_image: leaves the verified image in $KOGUMA_IMAGE, or fails.
fetch_root_image() {
    available=$(available_bytes)
    [ $((KOGUMA_ROOT_SIZE_BYTES + RESERVE_BYTES)) -le "$available" ] ||
        fail "$KOGUMA_ROOT_NAME: $KOGUMA_ROOT_SIZE_BYTES bytes of memory are needed, $available are available"
    mkdir -p $KOGUMA_IMAGE
    mount -t tmpfs -o "mode=0700,size=$((KOGUMA_ROOT_SIZE_BYTES + 1048576))" koguma-image $KOGUMA_IMAGE
    image=$KOGUMA_IMAGE/$KOGUMA_ROOT_NAME
    : >"$image"
    mkfifo $KOGUMA_RUN/hashing
    sha256sum <$KOGUMA_RUN/hashing >$KOGUMA_RUN/digest &
    hashing=$!
    exec 8>$KOGUMA_RUN/hashing
    fetch_parts
    exec 8>&-
    wait $hashing
    rm $KOGUMA_RUN/hashing
    received=$(stat -c %s "$image")
    [ "$received" = "$KOGUMA_ROOT_SIZE_BYTES" ] ||
        refuse_image "size must be $KOGUMA_ROOT_SIZE_BYTES bytes, got $received"
    read -r digest _ <$KOGUMA_RUN/digest
    [ "$digest" = "$KOGUMA_ROOT_SHA256" ] || refuse_image "SHA-256 must be $KOGUMA_ROOT_SHA256, got $digest"
}

# What a broken connection left out is asked for with Range. tee has ended after each attempt, so the file's size is
# exactly what the hash has seen.
fetch_parts() {
    attempt=0
    have=0
    range=
    deadline_s=$((FETCH_START_S + KOGUMA_ROOT_SIZE_BYTES / FETCH_RATE_MIN))
    while [ $attempt -lt $FETCH_ATTEMPTS ]; do
        # shellcheck disable=SC2086
        timeout $deadline_s wget -q -O - ${range:+--header "$range"} "$KOGUMA_ROOT_URL" 2>/dev/null | tee -a "$image" >&8
        have=$(stat -c %s "$image")
        [ "$have" -lt "$KOGUMA_ROOT_SIZE_BYTES" ] || return 0
        attempt=$((attempt + 1))
        [ "$have" = 0 ] || range="Range: bytes=$have-"
        say "$KOGUMA_ROOT_NAME: $have of $KOGUMA_ROOT_SIZE_BYTES bytes came; asking for the rest"
        sleep $attempt
    done
}

refuse_image() {
    rm -f "$image"
    fail "$KOGUMA_ROOT_NAME: $1 ($KOGUMA_ROOT_URL)"
}
