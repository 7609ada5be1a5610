"""AppArmor: whether the node has it, which profiles its kernel knows, and a default one of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.node.host.base import Host
from noderuntime.node.host.words import one_line

_log = log.get(__name__)

_DEFAULT = "noderuntime-default"
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_PARSER = "apparmor_parser"
_TIMEOUT = 30.0

_TEXT = """
profile noderuntime-default flags=(attach_disconnected, mediate_deleted) {
  # A container is free in what is its own: its files, its network, its processes.
  file,
  network,
  capability,
  umount,
  signal (send, receive) peer=noderuntime-default,
  ptrace (trace, tracedby, read, readby) peer=noderuntime-default,

  # It is told to stop by us and by the runtimes, some of which a distribution confines.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,

  # It mounts nothing, and changes nothing of the kernel but what its namespaces have of their own.
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
    """A kernel that confines by AppArmor."""

    default: str = _DEFAULT
    """The profile of containers that name none."""
    profiles: Path = _PROFILES
    """Lists what the kernel knows; each line ends with a mode in parentheses."""

    def knows(self, profile: str) -> bool:
        """Tell whether a profile is loaded. Blocks."""
        lines = self.profiles.read_text(encoding="utf-8", errors="replace").splitlines()
        return any(line.rpartition(" (")[0] == profile for line in lines)


async def prepare(host: Host) -> AppArmor | None:
    """Return the kernel's AppArmor with the default profile loaded; None where there is none to use.

    Without its parser a node counts as one without AppArmor, as it does for containerd.
    """
    if not _is_on():
        return None
    kernel = AppArmor()
    if kernel.knows(kernel.default):
        return kernel
    try:
        done = await host.run([_PARSER, "--replace"], timeout=_TIMEOUT, stdin=_TEXT.encode())
    except NoderuntimeError as error:
        _log.warning("AppArmor is on, but cannot be used", error=error)
        return None
    if done.returncode != 0:
        words = one_line(done.stderr.decode(errors="replace"))
        _log.warning("AppArmor is on, but takes no profile of ours", error=words)
        return None
    return kernel


def _is_on() -> bool:
    try:
        return _ENABLED.read_text(encoding="ascii").startswith("Y") and _PROFILES.exists()
    except OSError:
        return False
