# A watchdog over the fetch of the root image: hardware if there is one, the kernel's otherwise. It is petted until
# WATCHDOG_S seconds of uptime; a root image that takes longer counts as a hang.
# shellcheck shell=sh

WATCHDOG_S=1200
PET_EVERY_S=5

start_watchdog() {
    [ -e /dev/watchdog0 ] || modprobe -q softdog || return 0
    pet_watchdog &
    watchdog=$!
}

pet_watchdog() {
    exec 9>/dev/watchdog0 || return
    # The letter V tells the driver that closing is meant; without it the machine would reboot in the middle of stage 2.
    trap 'printf V >&9; exit 0' TERM
    while [ "$(whole_uptime_s)" -lt $WATCHDOG_S ]; do
        printf . >&9
        sleep $PET_EVERY_S &
        wait $!
    done
    sleep 1000
}

stop_watchdog() {
    [ -n "${watchdog:-}" ] || return 0
    kill "$watchdog"
    wait "$watchdog"
    watchdog=
}
