#!/usr/bin/env bash
# Sets a network card for latency: no interrupt moderation, its interrupts on the housekeeping cores.
# Lasts until the next boot. Needs root and ethtool; what the card or its driver does not know is said and left.
#   deploy/nic.sh eth0 0-1
set -euo pipefail
interface=${1:?usage: nic.sh INTERFACE HOUSEKEEPING_CPUS}
cpus=${2:?usage: nic.sh INTERFACE HOUSEKEEPING_CPUS}
[[ -d /sys/class/net/$interface ]] || { echo "no interface $interface" >&2; exit 2; }

ethtool -C "$interface" adaptive-rx off adaptive-tx off 2>/dev/null || echo "$interface: no adaptive moderation to switch off"
ethtool -C "$interface" rx-usecs 0 tx-usecs 0 2>/dev/null || echo "$interface: moderation cannot be set to 0"

moved=0
for path in "/sys/class/net/$interface/device/msi_irqs"/*; do
    [[ -e $path ]] || continue
    irq=${path##*/}
    if { echo "$cpus" >"/proc/irq/$irq/smp_affinity_list"; } 2>/dev/null; then
        moved=$((moved + 1))
    else
        echo "interrupt $irq stays where it is: the kernel manages it"
    fi
done
echo "$interface: $moved interrupts now on CPUs $cpus (irqbalance, if it runs, will move them again: stop it)"
