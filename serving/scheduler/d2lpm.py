"""Which host serves a request, where several do: prefixes stay at home, and every host gives every client its share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from spark_llm.serving.scheduler.dlpm import QUANTUM, Deficits


class HostDeficits:
    """The dispatcher of D2LPM (Cao et al., arXiv 2501.14312): per client, a deficit for each host.

    A request goes to the host with its longest cached prefix among those where its client has credit. So a hot prefix
    draws a quantum of its client's work to one host, then spreads. Each host then runs `DeficitLongestPrefixMatch`
    by itself; the gap between two clients over n hosts is at most n times the bound of one.
    """

    def __init__(self, hosts: Sequence[str], quantum: float = QUANTUM) -> None:
        self._hosts, self._quantum = hosts, quantum
        self._clients: dict[str, Deficits] = {}

    def choose(self, client: str, matched: Mapping[str, int], cost: float, among: Collection[str] = ()) -> str:
        """The host, of all or `among` some, for work of which `matched` tokens are cached where; charges it `cost`.

        Where the client has no credit at any of these, all of them are considered: none idles for the sake of shares.
        """
        deficits = self._clients.setdefault(client, self._new_client())
        ready = deficits.ready()
        hosts = [host for host in ready if host in among] or list(among) or ready
        host = max(hosts, key=lambda name: (matched.get(name, 0), deficits.credit[name]))
        deficits.charge(host, cost)
        return host

    def charge(self, client: str, host: str, amount: float) -> None:
        """What was chosen cost more than was charged (less than nothing: less)."""
        if client in self._clients:
            self._clients[client].charge(host, amount)

    def forget(self, client: str) -> None:
        """The client has ended."""
        self._clients.pop(client, None)

    def _new_client(self) -> Deficits:
        deficits = Deficits(self._quantum)
        for host in self._hosts:
            deficits.arrive(host)
        return deficits
