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
restrict_before= mounted= work= guard= manifest=

put_back() {
	if [ -n "$restrict_before" ]; then
		echo "$restrict_before" >|$restrict
		restrict_before=
	fi
	if [ -n "$guard" ]; then
		kill "$guard" 2>/dev/null
		guard=
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

# Others may own the directory and put links into it: it is held by being there, and files are
# made anew or not at all.
set -C
mkdir -p "$target" || exit 1
cd -P "$target" || exit 1
above=$(pwd -P)
number=1
while :; do
	name=$number
	while [ ${#name} -lt 3 ]; do name=0$name; done
	if [ ! -e "$name" ] && [ ! -e "$name.tar" ]; then
		# mkdir is what decides between two that run at once
		mkdir "$name.partial" 2>/dev/null && break
	fi
	number=$((number + 1))
	if [ $number -gt 99999 ]; then
		echo "collect: cannot make a directory in $target" >&2
		exit 1
	fi
done
work=$above/$name.partial
if ! cd -P "$name.partial" || [ "$(pwd -P)" != "$work" ]; then
	echo "collect: $work was replaced while it was made" >&2
	work=
	exit 1
fi

note() {
	manifest="$manifest$1: $2
"
}

# reason: what a command said at last
reason() {
	sed -n 's/.*: //;1p' error
	rm -f error
}

# save REPORT FILE
save() {
	if [ ! -e "$2" ]; then
		note "report $1" absent
	elif cat "$2" 2>error >"$1"; then
		note "report $1" saved
	else
		note "report $1" "refused: $(reason)"
		rm -f "$1"
	fi
	rm -f error
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
	if mount -t debugfs debugfs $debug 2>error; then
		mounted=yes
	else
		note debugfs "refused: $(reason)"
	fi
	rm -f error
fi

restrict_now=$(cat $restrict 2>/dev/null)
# Puts both back where nothing else can: after SIGKILL.
if [ -n "$mounted" ] || [ "${restrict_now:-1}" != 1 ]; then
	(
		trap '' INT HUP
		trap - EXIT TERM
		cd /
		while kill -0 $$; do sleep 1; done
		[ "${restrict_now:-1}" = 1 ] || echo "$restrict_now" >|$restrict
		[ -z "$mounted" ] || umount $debug
	) </dev/null >/dev/null 2>&1 &
	guard=$!
fi

if [ $drop_caches = yes ]; then
	sync
	# twice: what the first write sends through RCU, the second finds free
	if { echo 3 >|/proc/sys/vm/drop_caches && sleep 1 && echo 3 >|/proc/sys/vm/drop_caches; } \
		2>error; then
		note drop_caches done
	else
		why=$(reason)
		note drop_caches "refused: $why"
		echo "collect: caches were not dropped: $why" >&2
	fi
	rm -f error
else
	note drop_caches "not asked"
fi

# Before the other reports: what they need to read themselves must not look like growth.
if [ $scan = yes ]; then
	if [ ! -e $debug/kmemleak ]; then
		note scan absent
		echo "collect: kmemleak did not scan: absent" >&2
	elif sleep 5 && { echo scan >|$debug/kmemleak && sleep 5 && echo scan >|$debug/kmemleak; } \
		2>error; then
		# two scans: the first only records the checksum of a new object
		note scan done
	else
		why=$(reason)
		note scan "refused: $why"
		echo "collect: kmemleak did not scan: $why" >&2
	fi
	rm -f error
else
	note scan "not asked"
fi

for report in meminfo slabinfo buddyinfo zoneinfo modules allocinfo; do
	save $report /proc/$report
done

if [ "${restrict_now:-1}" != 1 ]; then
	restrict_before=$restrict_now
	echo 1 2>/dev/null >|$restrict || restrict_before=
fi
save vmallocinfo /proc/vmallocinfo
# of the symbols only those of modules: they are gone once the module is
if [ -e /proc/kallsyms ]; then
	sed -n '/\[/p' /proc/kallsyms >kallsyms
	note "report kallsyms" saved
else
	note "report kallsyms" absent
fi
save kmemleak $debug/kmemleak
if [ -n "$restrict_before" ]; then
	echo "$restrict_before" >|$restrict
	restrict_before=
fi
if [ ! -s vmallocinfo ]; then
	note addresses unknown
elif grep -q '^0x0*-' vmallocinfo; then
	note addresses zero
elif grep -q '^0x00000000[0-9a-f]\{8\}-' vmallocinfo; then
	note addresses hashed
elif grep -q '^0x[0-9a-f]\{8\}-0x[0-9a-f]\{8\} ' vmallocinfo; then
	# 32 bits, hashed or not: a region's size is the difference of real addresses only
	read -r span size _ <vmallocinfo
	if [ $(((${span#*-} - ${span%-*}) & 0xffffffff)) -eq "$size" ]; then
		note addresses real
	else
		note addresses hashed
	fi
else
	note addresses real
fi

save page_owner_stacks $debug/page_owner_stacks/show_stacks
if [ ! -e page_owner_stacks ]; then
	save page_owner $debug/page_owner
fi

if [ -d /sys/kernel/slab ]; then
	# a merged cache is a link to the one it was merged into
	ls -l /sys/kernel/slab 2>/dev/null | sed -n 's/.* \([^ ]*\) -> \(.*\)/\1 \2/p' \
		>slab_aliases
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

if dmesg 2>error >dmesg; then
	note "report dmesg" saved
else
	note "report dmesg" "refused: $(reason)"
	rm -f dmesg
fi
rm -f error
if ! printf '%s' "$manifest" >manifest; then
	echo "collect: cannot write to $work" >&2
	exit 1
fi

cd -P .. && [ "$(pwd -P)" = "$above" ] && mv "$name.partial" "$name" || exit 1
if [ $tar = yes ]; then
	work=$above/$name
	tar -cf - "$name" >"$name.tar" || exit 1
	echo "$target/$name.tar"
else
	work=
	echo "$target/$name"
fi
