"""The contents of the systemd units. Pure functions."""

from __future__ import annotations

import hashlib

from noderuntime.agent import layout

_PROGRAM = "/opt/noderuntime/current/bin/noderuntime"

TIMER_SLACK = 15
"""Seconds after the switch's timeout in which the switch can roll back by itself, before the timer fires."""

_SERVICE = f"""\
[Unit]
Description=noderuntime: CRI runtime for runc and gVisor
After=local-fs.target network.target containerd.service crio.service
Before=kubelet.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={_PROGRAM} serve
# Applies the settings that a running daemon can change; the log names those that need a restart.
ExecReload=/bin/kill -HUP $MAINPID
# Identifies bundle, configuration and unit of this process: the switch restarts it when they change.
Environment=NODERUNTIME_REVISION=@REVISION@
# gRPC's fork handlers would run for every process that the daemon spawns.
Environment=GRPC_ENABLE_FORK_SUPPORT=0
Restart=always
RestartSec=1
TimeoutStartSec=90
# The daemon reports while its event loop and its threads for blocking calls make progress.
WatchdogSec=60
# Monitors and containers keep running when the daemon stops.
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
Description=noderuntime: switch the kubelet as /etc/noderuntime/switch.toml describes
After={layout.SERVICE} kubelet.service

[Service]
Type=oneshot
ExecStart={_PROGRAM} switch apply
TimeoutStartSec=2h
TimeoutStopSec=10

# At boot, completes or rolls back a switch that a reboot interrupted.
[Install]
WantedBy=multi-user.target
"""

_REVERT = f"""\
[Unit]
Description=noderuntime: roll back the kubelet's settings

[Service]
Type=oneshot
# A switch that still runs at its deadline hangs.
ExecStartPre=-/usr/bin/env systemctl stop {layout.SWITCH}
ExecStart={_PROGRAM} switch revert --expired
TimeoutStartSec=30min
"""

_TIMER = f"""\
[Unit]
Description=noderuntime: deadline for switching the kubelet

[Timer]
OnActiveSec=@SECONDS@
AccuracySec=1s
RemainAfterElapse=no
Unit={layout.REVERT}
"""


def render(*, revision: str, timeout_seconds: int) -> dict[str, str]:
    """Return the units' contents by name. ``revision`` is that of :func:`daemon_revision`."""
    return {
        layout.SERVICE: _SERVICE.replace("@REVISION@", revision),
        layout.SWITCH: _SWITCH,
        layout.REVERT: _REVERT,
        layout.REVERT_TIMER: _TIMER.replace("@SECONDS@", str(timeout_seconds + TIMER_SLACK)),
    }


def daemon_revision(digest: str, config: str) -> str:
    """Return a hash of what requires a restart of the daemon: its bundle, configuration and unit."""
    return hashlib.sha256("\0".join((digest, config, _SERVICE)).encode()).hexdigest()[:16]
