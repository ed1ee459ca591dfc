"""Two hosts on this machine: network namespaces joined by a cable, each with an address of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


@dataclass(frozen=True)
class Host:
    """name: of its network namespace.   address: its own.   device: its end of the cable."""

    name: str
    address: str
    device: str

    def start(self, words: Sequence[str], log: Path) -> subprocess.Popen:
        """Start a command there, its output into a file."""
        more = {"GLOO_SOCKET_IFNAME": self.device, "OMP_NUM_THREADS": "1"}
        with open(log, "w") as stream:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *words],
                stdout=stream,
                stderr=stream,
                env={**os.environ, **more},
            )

    def torchrun(self, first: Host, hosts: int, words: Sequence[str]) -> list[str]:
        """The command that runs ``words`` in one process here, as one of ``hosts`` that meet at ``first``."""
        launcher = [*TORCHRUN, "--nnodes", str(hosts), "--nproc-per-node", "1", "--max-restarts", "0"]
        launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{first.address}:29400", "--rdzv-id", "a"]
        # No name leads to these addresses, from which torchrun would tell who hosts the meeting.
        launcher += ["--local-addr", self.address, "--rdzv-conf", f"is_host={int(self is first)}"]
        return [*launcher, "-m", *words]

    def kill(self) -> None:
        """SIGKILL to everything that runs there, as when the power goes."""
        for pid in ip("netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def ip(*words: str) -> str:
    """Run iproute2's ``ip``; its output."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two namespaces with one cable. Raises OSError or CalledProcessError where that is not allowed."""
    tag = f"rw{os.getpid() % 100_000}"
    hosts = [Host(f"{tag}{end}", f"10.213.77.{i + 1}", f"{tag}v{end}") for i, end in enumerate("ab")]
    made = []
    try:
        for host in hosts:
            ip("netns", "add", host.name)
            made.append(host)
        ip("link", "add", hosts[0].device, "type", "veth", "peer", "name", hosts[1].device)
        for host in hosts:
            ip("link", "set", host.device, "netns", host.name)
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.device)
            for device in (host.device, "lo"):
                ip("-n", host.name, "link", "set", device, "up")
        yield hosts[0], hosts[1]
    finally:
        for host in made:
            host.kill()
            ip("netns", "del", host.name)
