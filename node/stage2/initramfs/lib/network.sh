# Drivers and the boot NIC. The address is the one stage 1 got: there is no DHCP here, and no wait for it.
# shellcheck shell=sh

KOGUMA_NIC_WAIT_TENTHS=300
KOGUMA_CARRIER_WAIT_TENTHS=600

koguma_load_drivers() {
    # The hook keeps the drivers compressed one by one, out of the way of mkinitramfs, which would decompress them.
    release=$(uname -r)
    rm -rf "/usr/lib/modules/$release"
    ln -s "/usr/lib/koguma/modules/usr/lib/modules/$release" "/usr/lib/modules/$release"
    aliases=
    for device in /sys/bus/pci/devices/*; do
        read -r class <"$device/class"
        read -r alias <"$device/modalias"
        case $class in
            # NICs; watchdogs behind system peripherals, LPC and SMBus; disks, which root method local needs
            0x02* | 0x0880* | 0x0601* | 0x0c05* | 0x01*) aliases="$aliases $alias" ;;
        esac
    done
    # shellcheck disable=SC2086
    modprobe -abq $aliases af_packet loop overlay "${KOGUMA_ROOT_FORMAT:-ext4}"
    # shellcheck disable=SC2046
    modprobe -abq $(cat /sys/bus/virtio/devices/*/modalias 2>/dev/null)
    [ -e /dev/watchdog0 ] || modprobe -q softdog
    case ${KOGUMA_ROOT_METHOD:-disk} in
        nfs) modprobe -abq nfsv3 nfsv4 nfs ;;
        iscsi) modprobe -abq iscsi_tcp sd_mod ext4 ;;
        disk) modprobe -abq sd_mod ext4 ;;
    esac
}

# KOGUMA_INTERFACES is "MAC=NAME MAC=NAME …". A NIC that was renamed here keeps its name in stage 2 (udev's policy
# "keep"), so that it need not be taken down for it. Each goes over a name that no other can have; a NIC that nobody
# listed and that the kernel gave such a name makes room.
koguma_name_nics() {
    for pair in ${KOGUMA_INTERFACES:-}; do
        nic=$(koguma_nic_with_mac "${pair%%=*}") && ip link set "$nic" name "kgm-${pair##*=}"
    done
    for pair in ${KOGUMA_INTERFACES:-}; do
        name=${pair##*=}
        [ ! -e "/sys/class/net/$name" ] || ip link set "$name" name "other-$name"
        nic=$(koguma_nic_with_mac "${pair%%=*}") && ip link set "$nic" name "$name"
    done
}

koguma_nic_with_mac() {
    for nic in /sys/class/net/*; do
        [ -e "$nic/device" ] || continue
        read -r address <"$nic/address"
        [ "$address" = "$1" ] && echo "${nic##*/}" && return 0
    done
    return 1
}

# Prints nothing when the NIC is configured, else why it is not.
koguma_configure_boot_nic() {
    tries=0
    until boot_nic=$(koguma_nic_with_mac "$KOGUMA_MAC"); do
        tries=$((tries + 1))
        if [ $tries -ge $KOGUMA_NIC_WAIT_TENTHS ]; then
            echo "the boot NIC must have a driver in the initramfs, got no NIC with MAC $KOGUMA_MAC"
            return
        fi
        sleep 0.1
    done
    # Addresses come from boot.env alone: no stranger's router advertisement gives the node another.
    echo 0 >"/proc/sys/net/ipv6/conf/$boot_nic/accept_ra" || :
    [ -z "${KOGUMA_MTU:-}" ] || ip link set "$boot_nic" mtu "$KOGUMA_MTU"
    ip link set "$boot_nic" up
    ip addr add "$KOGUMA_ADDRESS" dev "$boot_nic"
    [ -z "$KOGUMA_GATEWAY" ] || ip route add default via "$KOGUMA_GATEWAY" dev "$boot_nic"
    tries=0
    until [ "$(cat "/sys/class/net/$boot_nic/carrier" 2>/dev/null)" = 1 ]; do
        tries=$((tries + 1))
        if [ $tries -ge $KOGUMA_CARRIER_WAIT_TENTHS ]; then
            echo "the boot NIC must have a link, got none in a minute ($boot_nic)"
            return
        fi
        sleep 0.1
    done
}
