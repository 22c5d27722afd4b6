"""Which host serves a request, where several do: prefixes stay at home, and every host gives every client its share."""

from __future__ import annotations

from collections.abc import Mapping

from spark_llm.serving.scheduler.dlpm import QUANTUM, Deficits


class HostDeficits:
    """The dispatcher of D2LPM (Cao et al., arXiv 2501.14312): per client, a deficit for each host.

    A request goes to the host with its longest cached prefix among those where its client has credit. So a hot prefix
    draws a quantum of its client's work to one host, then spreads. Each host then runs `DeficitLongestPrefixMatch`
    by itself; the gap between two clients over n hosts is at most n times the bound of one.
    """

    def __init__(self, hosts: list[str], quantum: float = QUANTUM) -> None:
        self._hosts, self._quantum = hosts, quantum
        self._clients: dict[str, Deficits] = {}

    def choose(self, client: str, matched: Mapping[str, int], cost: float) -> str:
        """The host for a request of which `matched` tokens are cached where; charges it what it will cost there."""
        deficits = self._clients.setdefault(client, self._new_client())
        host = max(deficits.ready(), key=lambda name: (matched.get(name, 0), deficits.credit[name]))
        deficits.charge(host, cost)
        return host

    def forget(self, client: str) -> None:
        """The client has ended."""
        self._clients.pop(client, None)

    def _new_client(self) -> Deficits:
        deficits = Deficits(self._quantum)
        for host in self._hosts:
            deficits.arrive(host)
        return deficits
