"""One etcd, as a process of its own: for drills, and for the tests that need a real one."""

from __future__ import annotations

from pathlib import Path

from replicator.coordinator import CoordinatorConfig, Etcd

MEMBER = "one"


def etcd_command(program: str, data_dir: Path, host: str, client_port: int, peer_port: int) -> list[str]:
    """Return how to start a cluster of one member on that host."""
    client, peer = f"http://{host}:{client_port}", f"http://{host}:{peer_port}"
    command = [program, "--name", MEMBER, "--data-dir", str(data_dir)]
    command += ["--listen-client-urls", client, "--advertise-client-urls", client]
    command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"{MEMBER}={peer}", "--log-level", "error", "--logger", "zap"]
    return command


def etcd_answers(config: CoordinatorConfig) -> bool:
    """Whether it is there already."""
    etcd = Etcd(config)
    try:
        etcd.view()
        return True
    except OSError:
        return False
    finally:
        etcd.close()
