"""The systemd units, as text. Pure."""

from __future__ import annotations

import hashlib

from noderuntime.agent import layout

_PROGRAM = "/opt/noderuntime/current/bin/noderuntime"

TIMER_SLACK = 15
"""Seconds that the timer leaves the switch to put everything back by itself first."""

_SERVICE = f"""\
[Unit]
Description=noderuntime: CRI runtime for runc and gVisor
After=local-fs.target network.target containerd.service crio.service
Before=kubelet.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={_PROGRAM} serve
# What can change in the running daemon does; the log names what needs a restart.
ExecReload=/bin/kill -HUP $MAINPID
# What this process was started with: the switch restarts it when that is no longer what is wanted.
Environment=NODERUNTIME_REVISION=@REVISION@
# A fork handler of gRPC would run at each of our many spawns.
Environment=GRPC_ENABLE_FORK_SUPPORT=0
Restart=always
RestartSec=1
TimeoutStartSec=90
# The end of the daemon is nobody else's: monitors and containers live on.
KillMode=process
Delegate=yes
OOMScoreAdjust=-999
LimitNOFILE=1048576
TasksMax=infinity
RuntimeDirectory=noderuntime
RuntimeDirectoryMode=0711
RuntimeDirectoryPreserve=yes
StateDirectory=noderuntime
StateDirectoryMode=0700

[Install]
WantedBy=multi-user.target
"""

_SWITCH = f"""\
[Unit]
Description=noderuntime: bring the kubelet to where /etc/noderuntime/switch.toml wants it
After={layout.SERVICE} kubelet.service

[Service]
Type=oneshot
ExecStart={_PROGRAM} switch apply
TimeoutStartSec=2h
TimeoutStopSec=10

# At boot it finishes or undoes what a reboot interrupted.
[Install]
WantedBy=multi-user.target
"""

_REVERT = f"""\
[Unit]
Description=noderuntime: put the kubelet's old settings back

[Service]
Type=oneshot
# The switch had its time; if it still runs, it hangs.
ExecStartPre=-/usr/bin/env systemctl stop {layout.SWITCH}
ExecStart={_PROGRAM} switch revert --expired
TimeoutStartSec=30min
"""

_TIMER = f"""\
[Unit]
Description=noderuntime: deadline of the kubelet's switch

[Timer]
OnActiveSec=@SECONDS@
AccuracySec=1s
RemainAfterElapse=no
Unit={layout.REVERT}
"""


def render(*, revision: str, timeout_seconds: int) -> dict[str, str]:
    """Return the units by name; revision says what the daemon is started with."""
    return {
        layout.SERVICE: _SERVICE.replace("@REVISION@", revision),
        layout.SWITCH: _SWITCH,
        layout.REVERT: _REVERT,
        layout.REVERT_TIMER: _TIMER.replace("@SECONDS@", str(timeout_seconds + TIMER_SLACK)),
    }


def daemon_revision(digest: str, config: str) -> str:
    """Return what tells two ways to start the daemon apart: its bundle, its configuration, its unit."""
    return hashlib.sha256("\0".join((digest, config, _SERVICE)).encode()).hexdigest()[:16]
