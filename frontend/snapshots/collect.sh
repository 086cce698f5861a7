#!/bin/sh
# Save one snapshot of the kernel's memory reports, for "kleak analyze" on another machine.
#
#   sh collect.sh [--drop-caches] [--scan] [--tar] DIR
#
# Makes DIR/001, DIR/002 and so on, one a run; with --tar, DIR/001.tar instead. Needs a POSIX
# shell and these commands, of busybox or any other: cat date dmesg grep id ls mkdir mount mv
# rm sed sleep sync umount uname, and tar for --tar. As root it sees everything; else it says
# what was refused. kernel.kptr_restrict and the mount of debugfs are put back on every way out.

set -u
# addresses and stacks are nobody else's business
umask 077
export LC_ALL=C

drop_caches=no scan=no tar=no target=
for argument; do
	case $argument in
	--drop-caches) drop_caches=yes ;;
	--scan) scan=yes ;;
	--tar) tar=yes ;;
	-*)
		echo "collect: unknown option $argument" >&2
		exit 2
		;;
	*) target=$argument ;;
	esac
done
if [ -z "$target" ]; then
	echo "usage: sh collect.sh [--drop-caches] [--scan] [--tar] DIR" >&2
	exit 2
fi

restrict=/proc/sys/kernel/kptr_restrict
debug=/sys/kernel/debug
restrict_before= mounted= work=

put_back() {
	if [ -n "$restrict_before" ]; then
		echo "$restrict_before" >$restrict
		restrict_before=
	fi
	if [ -n "$mounted" ]; then
		umount $debug
		mounted=
	fi
	if [ -n "$work" ]; then
		rm -rf "$work"
		work=
	fi
}
trap put_back EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

mkdir -p "$target" || exit 1
number=1
while :; do
	name=$number
	while [ ${#name} -lt 3 ]; do name=0$name; done
	if [ ! -e "$target/$name" ] && [ ! -e "$target/$name.tar" ]; then
		# mkdir is what decides between two that run at once
		mkdir "$target/$name.partial" 2>/dev/null && break
	fi
	number=$((number + 1))
	if [ $number -gt 99999 ]; then
		echo "collect: cannot make a directory in $target" >&2
		exit 1
	fi
done
work=$target/$name.partial

note() {
	if ! echo "$1: $2" >>"$work/manifest"; then
		echo "collect: cannot write to $work" >&2
		exit 1
	fi
}

# save REPORT FILE
save() {
	if [ ! -e "$2" ]; then
		note "report $1" absent
	elif cat "$2" 2>"$work/error" >"$work/$1"; then
		note "report $1" saved
	else
		note "report $1" "refused: $(sed -n 's/.*: //;1p' "$work/error")"
		rm -f "$work/$1"
	fi
}

note kleak-snapshot 1
note number "$number"
note time "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
note uptime_seconds "$(sed 's/ .*//' /proc/uptime)"
note kernel "$(uname -r)"
note machine "$(uname -m)"
# getconf is not in busybox
pages=$(sed -n '/^KernelPageSize:/{s/[^0-9]//g;p;q;}' /proc/self/smaps 2>/dev/null)
[ -z "$pages" ] || note page_size $((pages * 1024))
note boot_id "$(cat /proc/sys/kernel/random/boot_id)"
note uid "$(id -u)"

if ! grep -q " $debug debugfs " /proc/mounts && [ -d $debug ]; then
	if mount -t debugfs debugfs $debug 2>"$work/error"; then
		mounted=yes
	else
		note debugfs "refused: $(sed -n 's/.*: //;1p' "$work/error")"
	fi
fi

if [ $drop_caches = yes ]; then
	sync
	# twice: what the first write sends through RCU, the second finds free
	if { echo 3 >/proc/sys/vm/drop_caches && sleep 1 && echo 3 >/proc/sys/vm/drop_caches; } \
		2>"$work/error"; then
		note drop_caches done
	else
		reason=$(sed -n 's/.*: //;1p' "$work/error")
		note drop_caches "refused: $reason"
		echo "collect: caches were not dropped: $reason" >&2
	fi
else
	note drop_caches "not asked"
fi

# Before the other reports: what they need to read themselves must not look like growth.
if [ $scan = yes ]; then
	if [ ! -e $debug/kmemleak ]; then
		note scan absent
		echo "collect: kmemleak did not scan: absent" >&2
	elif sleep 5 && { echo scan >$debug/kmemleak && sleep 5 && echo scan >$debug/kmemleak; } \
		2>"$work/error"; then
		# two scans: the first only records the checksum of a new object
		note scan done
	else
		reason=$(sed -n 's/.*: //;1p' "$work/error")
		note scan "refused: $reason"
		echo "collect: kmemleak did not scan: $reason" >&2
	fi
else
	note scan "not asked"
fi

for report in meminfo slabinfo buddyinfo zoneinfo modules allocinfo; do
	save $report /proc/$report
done

restrict_now=$(cat $restrict 2>/dev/null)
if [ "${restrict_now:-1}" != 1 ]; then
	restrict_before=$restrict_now
	echo 1 2>/dev/null >$restrict || restrict_before=
fi
save vmallocinfo /proc/vmallocinfo
# of the symbols only those of modules: they are gone once the module is
if [ -e /proc/kallsyms ]; then
	sed -n '/\[/p' /proc/kallsyms >"$work/kallsyms"
	note "report kallsyms" saved
else
	note "report kallsyms" absent
fi
save kmemleak $debug/kmemleak
if [ -n "$restrict_before" ]; then
	echo "$restrict_before" >$restrict
	restrict_before=
fi
if [ ! -s "$work/vmallocinfo" ]; then
	note addresses unknown
elif grep -q '^0x0*-' "$work/vmallocinfo"; then
	note addresses zero
elif grep -q '^0x00000000[0-9a-f]\{8\}-' "$work/vmallocinfo"; then
	note addresses hashed
elif grep -q '^0x[0-9a-f]\{8\}-0x[0-9a-f]\{8\} ' "$work/vmallocinfo"; then
	# 32 bits, hashed or not: a region's size is the difference of real addresses only
	read -r span size _ <"$work/vmallocinfo"
	if [ $(((${span#*-} - ${span%-*}) & 0xffffffff)) -eq "$size" ]; then
		note addresses real
	else
		note addresses hashed
	fi
else
	note addresses real
fi

save page_owner_stacks $debug/page_owner_stacks/show_stacks
if [ ! -e "$work/page_owner_stacks" ]; then
	save page_owner $debug/page_owner
fi

if [ -d /sys/kernel/slab ]; then
	# a merged cache is a link to the one it was merged into
	ls -l /sys/kernel/slab 2>/dev/null | sed -n 's/.* \([^ ]*\) -> \(.*\)/\1 \2/p' \
		>"$work/slab_aliases"
	note "report slab_aliases" saved
else
	note "report slab_aliases" absent
fi
for traces in $debug/slab/*/alloc_traces; do
	[ -s "$traces" ] || cat "$traces" 2>/dev/null | grep -q '[0-9]' || continue
	cache=${traces%/alloc_traces}
	cache=${cache##*/}
	[ ! -L $debug/slab/"$cache" ] || continue
	save "alloc_traces-$cache" "$traces"
done

if dmesg 2>"$work/error" >"$work/dmesg"; then
	note "report dmesg" saved
else
	note "report dmesg" "refused: $(sed -n 's/.*: //;1p' "$work/error")"
	rm -f "$work/dmesg"
fi
rm -f "$work/error"

if [ $tar = yes ]; then
	mv "$work" "$target/$name" || exit 1
	work=$target/$name
	tar -cf "$target/$name.tar" -C "$target" "$name" || exit 1
	echo "$target/$name.tar"
else
	mv "$work" "$target/$name" || exit 1
	work=
	echo "$target/$name"
fi
