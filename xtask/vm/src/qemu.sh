#!/bin/sh
# What vmtest starts in QEMU's place: the same with another accelerator, another
# control socket, an end after LIMIT seconds that can be seen, and no life after
# its parent's.
run=$(dirname "$0")
skip=
for arg; do
	shift
	if [ -n "$skip" ]; then
		skip=
		continue
	fi
	case $arg in
	--help) exit ;;
	# vmtest takes the existence of /dev/kvm for a working KVM.
	-enable-kvm) ;;
	-cpu) skip=1 ;;
	unix:*,server=on,wait=off)
		path=${arg#unix:}
		echo "${path%%,*}" >"$run/qmp-path"
		set -- "$@" "unix:$run/qmp,server=on,wait=off"
		;;
	*) set -- "$@" "$arg" ;;
	esac
done
mkfifo "$run/alive"
exec setpriv --pdeathsig TERM \
	timeout --foreground --kill-after=10 LIMIT \
	setpriv --pdeathsig KILL \
	qemu-system-x86_64 ACCELERATOR "$@" 9>"$run/alive" 2>"$run/qemu.err"
