"""Addresses that are told of a job's end: which may be called, and how a receiver knows who speaks.

A service that calls any address that a request names is a way into its network and out of it. So by default only
addresses of this network are called (loopback, private); `CROSSTUNE_WEBHOOK_HOSTS` lists others by name.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from crosstune.service.errors import WebhookRefused
from crosstune.service.settings import Settings

SIGNATURE = "X-Crosstune-Signature"


def check_address(url: str, settings: Settings) -> None:
    """Raise WebhookRefused unless the host is on the list, or has addresses of this network only."""
    host = (urlsplit(url).hostname or "").lower()
    if host in settings.webhook_hosts:
        return
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise WebhookRefused(host, f"has no address ({error})") from error
    for address in sorted(found):
        if ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise WebhookRefused(host, f"is the public address {address}")


def signature(secret: str, now: float, body: bytes) -> str:
    """`t=SECONDS,v1=HEX`: HMAC-SHA256 under `secret` of the seconds, a dot and the body."""
    seconds = str(int(now))
    digest = hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"
