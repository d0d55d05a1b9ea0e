"""Which addresses a redirect may lead to: only those of the public Internet, unless the upstream says otherwise. Pure.

An upstream that is taken over could redirect this registry to addresses that only it can reach: the metadata service of
a cloud, a database on localhost. An address in another's clothes (IPv4-mapped, 6to4, NAT64, Teredo) is looked at naked.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("169.254.169.254")})


def is_public(text: str) -> bool:
    """Is this address reachable for everyone? text: an IP address, perhaps with a zone; anything else is not."""
    return all(address.is_global and not address.is_multicast for address in _meant(text)) and bool(_meant(text))


def is_tolerable(text: str) -> bool:
    """With private networks allowed: any address but link-local ones, where clouds keep their metadata, and no one."""
    found = _meant(text)
    return bool(found) and not any(
        each in _METADATA or each.is_link_local or each.is_multicast or each.is_unspecified for each in found
    )


def _meant(text: str) -> list[Address]:
    """The address, and each that is hidden in it; empty where it is none."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return []
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if (mapped := address.ipv4_mapped) is not None:
        return [mapped]
    hidden: list[Address] = [each for each in (address.sixtofour, *(address.teredo or ())) if each is not None]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    if address in _COMPATIBLE and int(address) > 1:
        hidden.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *hidden]
