"""The contents of the systemd units. Pure functions.

The switch runs from the version that served last, the fallback from the one before: a version that does not
work cannot break what takes it back. A version is therefore called by the units of another one: the verbs
``switch apply``, ``resume``, ``revert --expired`` and ``fallback`` must stay.
"""

from __future__ import annotations

import hashlib

from noderuntime.agent import layout

_OPT = "/opt/noderuntime"
_PROGRAM = "bin/noderuntime"

TIMER_SLACK = 15
"""Seconds after a deadline in which the switch can roll back by itself, before the timer fires."""

_SERVICE = f"""\
[Unit]
Description=noderuntime: CRI runtime for runc and gVisor
After=local-fs.target network.target containerd.service crio.service
Before=kubelet.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={_OPT}/current/{_PROGRAM} serve
# Applies the settings that a running daemon can change; the log names those that need a restart.
ExecReload=/bin/kill -HUP $MAINPID
# Identifies bundle, configuration and unit of this process: the switch restarts it when they change.
Environment=NODERUNTIME_REVISION=@REVISION@
# gRPC's fork handlers would run for every process that the daemon spawns.
Environment=GRPC_ENABLE_FORK_SUPPORT=0
Restart=always
RestartSec=1
TimeoutStartSec=90
# A stop takes six seconds at most, unless a disk hangs: then the node must not be without a socket for long.
TimeoutStopSec=20
# The daemon reports while its event loop and its threads for blocking calls make progress.
WatchdogSec=60
# Monitors and containers keep running when the daemon stops.
KillMode=process
Delegate=yes
OOMScoreAdjust=-999
# What containers get. The daemon raises its own soft limit.
LimitNOFILE=1024:524288
TasksMax=infinity
RuntimeDirectory=noderuntime
RuntimeDirectoryMode=0711
RuntimeDirectoryPreserve=yes
StateDirectory=noderuntime
StateDirectoryMode=0700

[Install]
WantedBy=multi-user.target
"""

# A node without other versions, set up by hand, has no fallback: its daemon is restarted for ever.
_FALLBACK_DROP_IN = f"""\
[Unit]
StartLimitIntervalSec=300
StartLimitBurst=5
OnFailure={layout.FALLBACK}
"""

_SWITCH = f"""\
[Unit]
Description=noderuntime: switch the kubelet as /etc/noderuntime/switch.toml describes
After={layout.SERVICE} kubelet.service
# Rolls back what a switch that was killed left incomplete.
OnFailure={layout.REVERT}

[Service]
Type=oneshot
ExecStart={_OPT}/proven/{_PROGRAM} switch apply
TimeoutStartSec=2h
TimeoutStopSec=10

# At boot, completes or rolls back a switch that a reboot interrupted.
[Install]
WantedBy=multi-user.target
"""

# Does not wait for the daemon, unlike the unit above: a new version may hang at its start.
_RESUME = f"""\
[Unit]
Description=noderuntime: complete or roll back an upgrade that a reboot interrupted
ConditionPathExists=/var/lib/noderuntime/switch/upgrade/journal.json

[Service]
Type=oneshot
ExecStart={_OPT}/proven/{_PROGRAM} switch resume
TimeoutStartSec=30min

[Install]
WantedBy=multi-user.target
"""

_REVERT = f"""\
[Unit]
Description=noderuntime: roll back an incomplete switch

[Service]
Type=oneshot
ExecStart={_OPT}/proven/{_PROGRAM} switch revert --expired
TimeoutStartSec=30min
"""

_FALLBACK = f"""\
[Unit]
Description=noderuntime: return to the version that served before, because the daemon keeps failing

[Service]
Type=oneshot
ExecStart={_OPT}/previous/{_PROGRAM} switch fallback
TimeoutStartSec=30min
"""

_TIMER = f"""\
[Unit]
Description=noderuntime: deadline of a switch

[Timer]
OnActiveSec=@SECONDS@
AccuracySec=1s
RemainAfterElapse=no
Unit={layout.REVERT}
"""


def render(revision: str) -> dict[str, str]:
    """Return the units' contents by name. ``revision`` is that of :func:`daemon_revision`."""
    return {
        layout.SERVICE: _SERVICE.replace("@REVISION@", revision),
        layout.FALLBACK_DROP_IN: _FALLBACK_DROP_IN,
        layout.SWITCH: _SWITCH,
        layout.RESUME: _RESUME,
        layout.REVERT: _REVERT,
        layout.FALLBACK: _FALLBACK,
    }


def timer(seconds: int) -> str:
    """Return the timer that rolls back what is not complete this many seconds after it is armed."""
    return _TIMER.replace("@SECONDS@", str(seconds + TIMER_SLACK))


def daemon_revision(digest: str, config: str) -> str:
    """Return a hash of what requires a restart of the daemon: its bundle, configuration and unit."""
    return hashlib.sha256("\0".join((digest, config, _SERVICE)).encode()).hexdigest()[:16]
