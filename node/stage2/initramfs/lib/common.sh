# What the other files share: places, messages, the end of a boot that cannot go on.
# shellcheck shell=sh disable=SC2034

KOGUMA_RUN=/run/koguma
KOGUMA_IMAGE=$KOGUMA_RUN/image     # tmpfs that holds the root image, or the copied root
KOGUMA_LOWER=$KOGUMA_RUN/lower     # the root image, mounted read-only
KOGUMA_OVERLAY=$KOGUMA_RUN/overlay # tmpfs of what stage 2 writes
FAILURE_PAUSE_S=10

say() {
    echo "koguma [$(uptime_s)] $*" >/dev/console
}

uptime_s() {
    read -r uptime _ </proc/uptime
    echo "$uptime"
}

whole_uptime_s() {
    read -r uptime _ </proc/uptime
    echo "${uptime%.*}"
}

# fail REASON: tell it, show it, reboot. Nothing that was not verified is ever mounted on the way.
fail() {
    say "root failed: $1"
    wait_for_reports
    report root failed "$1"
    say "rebooting in $FAILURE_PAUSE_S seconds"
    sleep $FAILURE_PAUSE_S
    stop_watchdog
    reboot -f
    # A reboot that the firmware does not perform is forced by the kernel.
    echo b >/proc/sysrq-trigger
    sleep 1000
}

take_handover() {
    mkdir -m 0700 -p $KOGUMA_RUN
    if [ ! -f /koguma/boot.env ]; then
        say "/koguma/boot.env must be in the initramfs: this kernel was started without stage 1"
        sleep $FAILURE_PAUSE_S
        reboot -f
    fi
    (umask 077 && cp /koguma/boot.env /koguma/detail.json $KOGUMA_RUN/)
    rm -rf /koguma
    . $KOGUMA_RUN/boot.env
}

available_bytes() {
    while read -r key value _; do
        [ "$key" = MemAvailable: ] && echo $((value * 1024)) && return
    done </proc/meminfo
}
