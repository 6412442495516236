# What the guest runs: liburing's test programs, one after the other, in a copy of
# their folder that they may write to.
# $1: the folder, $2: seconds for each; the others: their names.
programs=$1 limit=$2
shift 2
cp -r "$programs" "$TMPDIR/test" && cd "$TMPDIR/test" || exit
for name; do
	# In the kernel's log, for whoever wants to know what made it speak.
	echo "liburing: $name" >/dev/kmsg
	start=$SECONDS
	timeout --signal=INT --kill-after=5 "$limit" "./$name.t" >said 2>&1
	status=$?
	# Its own lines first: of what went well, nobody wants to read them.
	case $status in 0 | 77) ;; *) tail -n 3 said ;; esac
	printf '\nRESULT %s %s %s\n' "$name" "$status" $((SECONDS - start))
done
