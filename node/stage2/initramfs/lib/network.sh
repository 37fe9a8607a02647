# Drivers and the boot NIC. The address is the one stage 1 got: there is no DHCP here, and no wait for it.
# shellcheck shell=sh

NIC_WAIT_TENTHS=300
CARRIER_WAIT_TENTHS=600

load_drivers() {
    aliases=
    for device in /sys/bus/pci/devices/*; do
        read -r class <"$device/class"
        read -r alias <"$device/modalias"
        case $class in
            0x02* | 0x0880* | 0x0601* | 0x0c05* | 0x01*) aliases="$aliases $alias" ;;  # NICs, watchdogs; disks of root method local
        esac
    done
    # shellcheck disable=SC2086
    modprobe -abq $aliases loop overlay "$KOGUMA_ROOT_FORMAT"
    modprobe -abq $(cat /sys/bus/virtio/devices/*/modalias 2>/dev/null)
}

# name_nics: KOGUMA_INTERFACES is "MAC=NAME MAC=NAME …". A NIC that was renamed here keeps its name in stage 2 (udev's
# policy "keep"), so that it need not be taken down for it. Each goes over a name that no other can have.
name_nics() {
    for pair in ${KOGUMA_INTERFACES:-}; do
        nic=$(nic_with_mac "${pair%%=*}") && ip link set "$nic" name "kgm-${pair##*=}"
    done
    for pair in ${KOGUMA_INTERFACES:-}; do
        nic=$(nic_with_mac "${pair%%=*}") && ip link set "$nic" name "${pair##*=}"
    done
}

nic_with_mac() {
    for nic in /sys/class/net/*; do
        [ -e "$nic/device" ] || continue
        read -r address <"$nic/address"
        [ "$address" = "$1" ] && echo "${nic##*/}" && return 0
    done
    return 1
}

configure_boot_nic() {
    tries=0
    until boot_nic=$(nic_with_mac "$KOGUMA_MAC"); do
        tries=$((tries + 1))
        [ $tries -lt $NIC_WAIT_TENTHS ] || fail "the boot NIC must have a driver in the initramfs, got no NIC with MAC $KOGUMA_MAC"
        sleep 0.1
    done
    ip link set "$boot_nic" up
    ip addr add "$KOGUMA_ADDRESS" dev "$boot_nic"
    [ -z "$KOGUMA_GATEWAY" ] || ip route add default via "$KOGUMA_GATEWAY" dev "$boot_nic"
    tries=0
    until [ "$(cat "/sys/class/net/$boot_nic/carrier" 2>/dev/null)" = 1 ]; do
        tries=$((tries + 1))
        [ $tries -lt $CARRIER_WAIT_TENTHS ] || fail "the boot NIC must have a link, got none in a minute ($boot_nic)"
        sleep 0.1
    done
}
