# Stands in for a gVisor sub-container, which has no process on the node.
#
# conmon runs this script as its runtime, with a static busybox:
#     sh THIS BUSYBOX PIDFILE_OF_THE_SANDBOX RUNSC FLAG... create --bundle DIR --pid-file FILE ID
# The script creates the container, starts one small shell in the background and writes its PID to FILE.
# conmon adopts that shell and treats it as the container's process. The shell holds the container's stdio and
# waits for the line "start" on the fifo DIR/gate. Then it runs `runsc start`, which hands the stdio over,
# writes its exit status to DIR/started, and exits with the container's exit status.
set -fu
console=
busybox=$1
sandbox=$2
shift 2
runsc=
while [ "$1" != create ]; do
    runsc="$runsc $1"
    shift
done
shift
while [ $# -gt 1 ]; do
    case $1 in
    --bundle) bundle=$2 ;;
    --pid-file) pidfile=$2 ;;
    --console-socket) console=--console-socket=$2 ;;
    esac
    shift 2
done
id=$1

# Moves this shell, and so its children, into the sandbox's cgroup: conmon watches that cgroup for OOM kills,
# the memory of the stand-in is charged to the pod, not to the daemon, and systemd does not count it as a process
# of the daemon's service, which it kills with the service.
join() {
    read -r pid <"$sandbox"
    while IFS=: read -r _ controllers path; do
        case $controllers in
        memory) group=/sys/fs/cgroup/memory$path ;;
        name=systemd) group=/sys/fs/cgroup/systemd$path ;;
        '') group=/sys/fs/cgroup$path ;;
        *) continue ;;
        esac
        # The hierarchy without controllers is only mounted here if it is the only one (cgroup v2). In the one
        # beside those of v1, this shell has conmon's cgroup.
        [ "$controllers" ] || [ -e /sys/fs/cgroup/cgroup.controllers ] || continue
        echo $$ >"$group/cgroup.procs" || exit
    done <"/proc/$pid/cgroup" || exit
}

join & # in the background: a write to cgroup.procs blocks for 5 to 20 ms
$runsc create --bundle "$bundle" $console "$id" </dev/null >&2 || exit
wait $! || exit
"$busybox" mkfifo -m 600 "$bundle/gate" || exit

stand_in() {
    read -r order <&3
    exec 3<&-
    [ "$order" = start ] || exit 137
    $runsc --log="$bundle/start.log" start "$id" <&4 4<&-
    code=$?
    echo "$code" >"$bundle/started"
    [ "$code" = 0 ] || exit 128
    # The container has its stdio now. Close it here, because conmon logs until the last writer has closed.
    exec </dev/null >/dev/null 2>&1 4<&-
    result=$($runsc wait "$id")
    case $result in
    *'"exitStatus":'*)
        result=${result##*:}
        exit "${result%\}*}"
        ;;
    esac
    exit 137 # the sandbox died, and the container with it
}

exec 3<>"$bundle/gate" # before the PID is written: the daemon's write fails if the fifo has no reader
exec 4<&0              # a shell redirects the stdin of background commands to /dev/null
stand_in &
echo $! >"$pidfile"
