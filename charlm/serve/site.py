"""Where browsers find the server, and which sites' pages may ask it."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit


def origin_of(url: str) -> tuple[str, str]:
    """The origin of an address, as browsers write it, and its path without the last slash.

    Raises:
        ValueError: it is no address of a site.
    """
    parts = urlsplit(url.strip())
    port = parts.port  # ValueError if it is no number
    extra = parts.query or parts.fragment or parts.username is not None or any(c.isspace() for c in parts.netloc)
    if parts.scheme not in ("http", "https") or not parts.hostname or extra:
        raise ValueError(url)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = port is None or port == {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if usual else f":{port}"), parts.path.rstrip("/")


def host_of(place: str) -> str:
    """The host of HOST or HOST:PORT, in small letters.

    Raises:
        ValueError: it is neither.
    """
    parts = urlsplit(f"//{place}")
    if parts.netloc != place or "@" in place or " " in place:
        raise ValueError(place)
    return (parts.hostname or "").removesuffix(".")


@dataclass(frozen=True)
class Site:
    """The site that the server is.

    Attributes:
        public: its address before a proxy, if it is behind one: https://example.com, https://example.com/charlm.
        origins: of other sites whose pages may ask; "*" is every site, "null" a page that is a file.
        hosts: names by which it may be asked, besides that of `public`, those of this machine itself, and addresses.
    """

    public: str = ""
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The path before every address: "" or "/charlm"."""
        return origin_of(self.public)[1] if self.public else ""

    def within(self, path: str) -> str:
        """A path without the prefix, whether or not the proxy has taken it off, and without doubled or last slashes."""
        path = "/" + "/".join(filter(None, path.split("/")))
        return path.removeprefix(self.prefix) or "/" if f"{path}/".startswith(f"{self.prefix}/") else path

    def misses(self, headers: dict[bytes, bytes]) -> str | None:
        """Why a request is not for this server: it asks for it by a name that is not its own.

        A page of any site has its name lead here once it is loaded, and is then of the same origin to a browser (DNS
        rebinding). It cannot do so with an address, nor with a name that always is this machine's. Every browser says
        whom it asks.
        """
        asked, own = headers.get(b"host", b"").decode("latin-1"), urlsplit(self.public).hostname
        with contextlib.suppress(ValueError):
            host = host_of(asked)
            named = host in ("", "localhost", own, *self.hosts) or host.endswith(".localhost")
            if named or ipaddress.ip_address(host):  # which is true, or a ValueError
                return None
        return f"asked as {asked}; its owner may allow that: charlm serve --allow-host {asked}, or with an --api-key"

    def refuses(self, headers: dict[bytes, bytes]) -> str | None:
        """Why a browser's request is refused: it comes from another site's page, which a browser sends without asking.

        Over plain HTTP, but to this machine itself, a browser does not say so, and the page's origin has to be this
        host.
        """
        origin, host = (headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
        if {"*", origin} & {*self.origins} or (self.public and origin == origin_of(self.public)[0]):
            return None
        site = headers.get(b"sec-fetch-site")
        elsewhere = site == b"cross-site" if site else origin and origin.partition("://")[2] != host
        if not elsewhere:
            return None
        if "://" not in origin:
            return (
                f"asked by another site's page; its owner may allow it: charlm serve --allow-origin {origin or 'SITE'}"
            )
        return (
            f"asked by a page of {origin}, which is another site than {host}; if {origin} is a proxy before this "
            f"server, start it with --public-url {origin}, if it is a site that may ask, with --allow-origin {origin}"
        )
