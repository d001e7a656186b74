#!/usr/bin/env bash
# qemu.sh: installs Windows from an ISO in a virtual machine, runs try.ps1 in it, and copies its results out.
#
# usage: qemu.sh --iso WINDOWS.iso --package sluice-VERSION-x64.zip [option...]
#
#   --folder DIR     the folder for the machine and its results (./sluice-vm)
#   --index N        which edition of the ISO (1)
#   --key KEY        its product key; evaluation ISOs need none
#   --memory MIB     memory (4096)
#   --cpus N         processors (2)
#   --accel NAME     kvm, or tcg without KVM: hours instead of minutes (kvm)
#   --hours N        when to give up (4)
#   --verifier       run under Driver Verifier
#   --display NAME   QEMU's display, to watch (none)
#   --dry-run        print what would be done
#
# Windows x64, x86-64 host. Needs qemu-system-x86, qemu-utils, mtools, iproute2 and python3 of Debian; no root if user
# namespaces are allowed. The machine's only network has this host's web server on it. BIOS instead of UEFI, so there is
# no Secure Boot; SATA, e1000e and USB, for which Windows has drivers.
#
# Not yet run with Windows by this project; tests/vm_scripts.rs tests everything else.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
blocked4=192.0.2.66 blocked6=2001:db8:5::66
permitted4=192.0.2.10 permitted6=2001:db8:5::10
guest4=192.0.2.2 guest6=2001:db8:5::2

die() {
    printf 'qemu.sh: %s\n' "$*" >&2
    exit 2
}

# In a separate network namespace: the web server and QEMU. The remaining arguments are QEMU's.
if [ "${1:-}" = --inside ]; then
    shift
    tap=$1 ready=$2 hours=$3
    shift 3
    ip link set lo up
    ip tuntap add dev "$tap" mode tap
    for address in $blocked4/24 $permitted4/24 $blocked6/64 $permitted6/64; do
        case $address in
            *:*) ip -6 address add "$address" dev "$tap" nodad ;;
            *) ip address add "$address" dev "$tap" ;;
        esac
    done
    ip link set "$tap" up
    python3 "$here/server.py" 80 $blocked4 $permitted4 $blocked6 $permitted6 >"$ready" &
    server=$!
    trap 'kill "$server" 2>/dev/null || true' EXIT
    for _ in $(seq 100); do
        [ "$(cat "$ready")" != ready ] || break
        kill -0 "$server" 2>/dev/null || die "the web server did not start"
        sleep 0.1
    done
    [ "$(cat "$ready")" = ready ] || die "the web server did not start"
    status=0
    timeout --foreground "${hours}h" "$@" || status=$?
    exit "$status"
fi

iso='' package='' folder=sluice-vm index=1 key='' memory=4096 cpus=2 accel=kvm hours=4 display=none
verifier=false dry=''
while [ $# -gt 0 ]; do
    case $1 in
        --verifier) verifier=true ;;
        --dry-run) dry=1 ;;
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' -- "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --iso | --package | --folder | --index | --key | --memory | --cpus | --accel | --hours | --display)
            [ $# -ge 2 ] || die "$1 needs a value"
            declare "${1#--}=$2"
            shift
            ;;
        *) die "unknown option: $1 (see --help)" ;;
    esac
    shift
done

if [ -z "$iso" ] || [ -z "$package" ]; then
    die "--iso and --package are needed (see --help)"
fi
[ -f "$iso" ] || die "$iso does not exist"
[ -f "$package" ] || die "$package does not exist"
for number in "$index" "$memory" "$cpus" "$hours"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || die "not a number: $number"
done
[[ $key =~ ^[A-Za-z0-9-]*$ ]] || die "not a product key: $key"
case $accel in
    kvm) [ -n "$dry" ] || [ -w /dev/kvm ] || die "no access to /dev/kvm: join its group, or use --accel tcg" ;;
    tcg) ;;
    *) die "--accel is kvm or tcg" ;;
esac
for program in qemu-system-x86_64 qemu-img mformat mcopy ip unshare timeout python3; do
    command -v "$program" >/dev/null || die "$program is missing"
done

run() {
    if [ -n "$dry" ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

iso=$(realpath -- "$iso") package=$(realpath -- "$package")
[ -n "$dry" ] || mkdir -p -- "$folder"
folder=$(realpath -m -- "$folder")
[[ $iso$folder != *,* ]] || die "QEMU accepts no comma in a path"
results=$folder/results-$(date -u +%Y%m%d-%H%M%S)
disk=$folder/disk.qcow2 exchange=$folder/exchange.img

# The exchange disk: the answers for Windows Setup, the files to run in the machine, and later its results.
stage=$(mktemp -d)
trap 'rm -rf -- "$stage"' EXIT
mkdir "$stage/unpacked" "$stage/sluice"
python3 -m zipfile -e "$package" "$stage/unpacked"
found=$(find "$stage/unpacked" -name try.ps1 | head -n 1)
[ -n "$found" ] || die "$package contains no try.ps1"
cp -r -- "$(dirname -- "$found")/." "$stage/sluice"
cp -- "$here/guest.ps1" "$stage/sluice"
cat >"$stage/sluice/order.json" <<END
{"blocked": "$blocked4,$blocked6", "permitted": "$permitted4,$permitted6", "verifier": $verifier,
 "addresses": ["$guest4", "$guest6"]}
END
sed "s/@ARCHITECTURE@/amd64/; s/@INDEX@/$index/; s/@KEY@/$key/" "$here/autounattend.xml" >"$stage/autounattend.xml"

run rm -f -- "$disk" "$exchange"
run qemu-img create -q -f qcow2 "$disk" 64G
run truncate -s 512M "$exchange"
run mformat -i "$exchange" -F -v SLUICE ::
run mcopy -i "$exchange" -s "$stage/autounattend.xml" "$stage/sluice" ::

processor=host
[ "$accel" = kvm ] || processor=max
qemu=(
    qemu-system-x86_64 -name sluice -machine q35 -accel "$accel" -cpu "$processor" -smp "$cpus" -m "$memory"
    -drive "file=$disk,format=qcow2,if=none,id=disk" -device "ide-hd,drive=disk,bus=ide.0"
    -drive "file=$iso,format=raw,media=cdrom,readonly=on,if=none,id=setup" -device "ide-cd,drive=setup,bus=ide.1"
    -device qemu-xhci -drive "file=$exchange,format=raw,if=none,id=exchange"
    -device "usb-storage,drive=exchange,removable=on" -device usb-tablet
    -netdev "tap,id=net,ifname=tap0,script=no,downscript=no" -device "e1000e,netdev=net"
    -boot "order=c,once=d" -rtc base=utc -display "$display"
)
# The machine turns itself off when try.ps1 has ended.
status=0
run unshare --map-root-user --net "${BASH_SOURCE[0]}" --inside tap0 "$stage/ready" "$hours" "${qemu[@]}" || status=$?
case $status in
    0) ;;
    124) die "the machine did not turn itself off within $hours hours: watch it with --display gtk" ;;
    *) die "QEMU ended with status $status" ;;
esac
[ -z "$dry" ] || exit 0

mkdir -- "$results"
mcopy -i "$exchange" -s -n '::results/*' '::status.txt' "$results" ||
    die "the machine left no results; its disk is $disk"
status=$(tr -d '\r\n' <"$results/status.txt")
[ ! -f "$results/try.log" ] || tail -n 60 -- "$results/try.log"
echo "try.ps1: $status; results in $results"
[ "$status" = 0 ]
