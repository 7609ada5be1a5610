# Stands in for a gVisor sub-container, which has no process on the host.
#
# conmon runs this as its runtime, by a static busybox:
#     sh THIS BUSYBOX PIDFILE_OF_THE_SANDBOX RUNSC FLAG... create --bundle DIR --pid-file FILE ID
# It creates the container and leaves one small shell behind, whose PID goes into FILE.
# conmon adopts that shell and takes it for the container: it holds the container's stdio,
# runs `runsc start` (which hands the stdio over) when told through the fifo DIR/gate,
# then ends as the container does. How the start went is written to DIR/started.
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

# Puts this shell, and so what it leaves behind, where the sandbox is: there conmon watches for
# out-of-memory kills, and what stands in for a container is not the daemon's expense.
join() {
    read -r pid <"$sandbox"
    while IFS=: read -r _ controllers path; do
        case $controllers in
        memory) group=/sys/fs/cgroup/memory$path ;;
        '') group=/sys/fs/cgroup$path ;;
        *) continue ;;
        esac
        # The hierarchy without controllers is elsewhere where there are others.
        [ "$controllers" ] || [ -e /sys/fs/cgroup/cgroup.controllers ] || continue
        echo $$ >"$group/cgroup.procs" || exit
    done <"/proc/$pid/cgroup" || exit
}

join & # the kernel makes whoever moves a process wait
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
    # The container has its stdio now; to hold it here as well would keep the log from its end.
    exec </dev/null >/dev/null 2>&1 4<&-
    said=$($runsc wait "$id")
    case $said in
    *'"exitStatus":'*)
        said=${said##*:}
        exit "${said%\}*}"
        ;;
    esac
    exit 137 # the sandbox died, and the container with it
}

exec 3<>"$bundle/gate" # open before anybody is told of it: an order must find its reader
exec 4<&0              # a shell gives what it runs in the background /dev/null instead
stand_in &
echo $! >"$pidfile"
