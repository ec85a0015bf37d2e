"""Counts in the cache, which all processes share, and the networks that clients are counted by."""

import contextlib
import ipaddress

from django.core.cache import cache

IPV6_PREFIX = 64  # A single client is commonly given this whole network.


def count(key: str, seconds: int) -> int:
    """
    Count one more and return the number since the first one, within so many seconds.

    Between `add` and `incr` a cache may lose the key, or be replaced by the memory of this process.
    The count then starts again: a fault of the cache must not reject a client within its limit.
    """
    for _ in range(2):
        if cache.add(key, 1, seconds):
            return 1
        with contextlib.suppress(ValueError):
            return cache.incr(key)
    return 1


def network_of(address: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 one."""
    return ipaddress.ip_network(f"{address}/{IPV6_PREFIX if ':' in address else 32}", strict=False)
