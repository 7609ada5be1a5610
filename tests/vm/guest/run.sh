# Run in the machine when it is up: make it a node on which noderuntime is the only runtime, and run the tests.
smoke=/opt/noderuntime/smoke
export PATH=/opt/noderuntime/current/bin:$PATH PYTHONPATH=$smoke/packages:$smoke/tests PYTHONDONTWRITEBYTECODE=1

ended() {
    status=$?
    [ $status = 0 ] || journalctl --no-pager --quiet --unit noderuntime.service --lines 100
    echo "smoke set: exit status $status"
}
trap ended EXIT
set -e

fallocate -l 128M /swap
chmod 600 /swap
mkswap --quiet /swap
swapon /swap
cp -r $smoke/etc/. /etc/
systemctl daemon-reload
systemctl start noderuntime.service
noderuntime images load $smoke/image.tar
cd $smoke/tests
python3 -m pytest
