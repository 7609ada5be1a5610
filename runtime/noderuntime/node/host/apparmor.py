"""AppArmor: whether the node supports it, which profiles are loaded, and noderuntime's default profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.node.host.base import Host
from noderuntime.node.host.messages import one_line

_log = log.get(__name__)

_DEFAULT = "noderuntime-default"
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_PARSER = "apparmor_parser"
_TIMEOUT = 30.0

_TEXT = """
profile noderuntime-default flags=(attach_disconnected, mediate_deleted) {
  # Allow everything that concerns only the container: its files, its network, its processes.
  file,
  network,
  deny network alg,
  capability,
  umount,
  signal (send, receive) peer=noderuntime-default,
  ptrace (trace, tracedby, read, readby) peer=noderuntime-default,

  # Allow signals from the daemon and from the runtimes, some of which a distribution confines.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,

  # Deny mounts, and writes to kernel settings that are not namespaced.
  deny mount,
  deny /proc/{kcore,sysrq-trigger} rwklx,
  deny /proc/[^1-9s]* w,
  deny /proc/s[^ey]* w,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,sysvipc,tty}/** w,
  deny /proc/sys/{abi,crypto,debug,dev,fs,fscache,net,sunrpc,user,vm}/** w,
  deny /proc/sys/kernel/{[^ms],m[^s],s[^eh]}** w,
  deny /proc/sys/kernel/seccomp/** w,
  deny /sys/{block,bus,class,dev,devices,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
"""


@dataclass(frozen=True, slots=True)
class AppArmor:
    """The AppArmor of a kernel that has it enabled."""

    default: str = _DEFAULT
    """The profile of containers that request none."""
    profiles: Path = _PROFILES
    """The file that lists the loaded profiles, one per line, with the mode in parentheses."""

    def knows(self, profile: str) -> bool:
        """Return whether a profile is loaded. Blocks."""
        lines = self.profiles.read_text(encoding="utf-8", errors="replace").splitlines()
        return any(line.rpartition(" (")[0] == profile for line in lines)


async def prepare(host: Host) -> AppArmor | None:
    """Load the default profile and return the kernel's AppArmor, or None if it cannot be used.

    Like containerd, treat a node without apparmor_parser as a node without AppArmor.
    """
    if not _is_enabled():
        return None
    kernel = AppArmor()
    if kernel.knows(kernel.default):
        return kernel
    try:
        done = await host.run([_PARSER, "--replace"], timeout=_TIMEOUT, stdin=_TEXT.encode())
    except NoderuntimeError as error:
        _log.warning("AppArmor is enabled, but apparmor_parser failed", error=error)
        return None
    if done.returncode != 0:
        message = one_line(done.stderr.decode(errors="replace"))
        _log.warning("AppArmor is enabled, but the default profile was not loaded", error=message)
        return None
    return kernel


def _is_enabled() -> bool:
    try:
        return _ENABLED.read_text(encoding="ascii").startswith("Y") and _PROFILES.exists()
    except OSError:
        return False
