"""Single Python values as Cedar JSON: exact, or refused with the reason.

The extension forms are those of the Cedar JSON format (docs.cedarpolicy.com, "Entities and context syntax").
"""

import datetime
import ipaddress
import uuid
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

#: Cedar's ``Long`` is a signed 64-bit integer.
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
#: Cedar's ``decimal`` is a signed 64-bit integer of ten-thousandths.
_DECIMAL_MIN, _DECIMAL_MAX = Decimal(LONG_MIN).scaleb(-4), Decimal(LONG_MAX).scaleb(-4)
_TEN_THOUSANDTH = Decimal("0.0001")
#: Enough digits for every Cedar decimal; a larger number fails to quantize instead of being rounded.
_CONTEXT = Context(prec=40)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


class Unrepresentable(Exception):
    """A value has no exact Cedar form.

    Args:
        reason: A predicate that follows the dotted name, for example ``"is not finite"``; never the value.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def extension(fn: str, arg: str) -> dict[str, Any]:
    """Return the Cedar JSON escape of an extension value."""
    return {"__extn": {"fn": fn, "arg": arg}}


def long(value: int) -> int:
    """Return an integer that fits Cedar's Long.

    Raises:
        Unrepresentable: It needs more than 64 bits.
    """
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise Unrepresentable("is an integer that does not fit in 64 bits")


def decimal(value: Decimal) -> dict[str, Any]:
    """Return a number as Cedar decimal.

    Raises:
        Unrepresentable: It is not finite, has more than four fractional digits or is out of Cedar's range.
    """
    if not value.is_finite():
        raise Unrepresentable("is not a finite number")
    try:
        exact = value.quantize(_TEN_THOUSANDTH, context=_CONTEXT)
    except ArithmeticError:
        raise Unrepresentable("is a number outside the range of a Cedar decimal") from None
    if exact != value:
        raise Unrepresentable("is a number with more than four fractional digits, which a Cedar decimal cannot hold")
    if not _DECIMAL_MIN <= exact <= _DECIMAL_MAX:
        raise Unrepresentable("is a number outside the range of a Cedar decimal")
    whole, fraction = format(exact, "f").split(".")
    return extension("decimal", f"{whole}.{fraction.rstrip('0') or '0'}")


def float_decimal(value: float) -> dict[str, Any]:
    """Return a float as Cedar decimal, judged by its shortest decimal form (``repr``).

    Raises:
        Unrepresentable: As for :func:`decimal`.
    """
    return decimal(Decimal(float.__repr__(value)))


def moment(value: datetime.datetime) -> dict[str, Any]:
    """Return an aware datetime as Cedar datetime in UTC.

    Raises:
        Unrepresentable: It has no time zone, or digits below the millisecond, which Cedar would drop.
    """
    if value.utcoffset() is None:
        raise Unrepresentable("is a datetime without a time zone")
    try:
        since = value - _EPOCH
        utc = _EPOCH + since
    except OverflowError:
        raise Unrepresentable("is a datetime outside the years 1 to 9999 in UTC") from None
    if since % _MILLISECOND:
        raise Unrepresentable("is a datetime with digits below the millisecond, which Cedar cannot hold")
    return extension("datetime", f"{utc.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z")


def duration(value: datetime.timedelta) -> dict[str, Any]:
    """Return a timedelta as Cedar duration.

    Raises:
        Unrepresentable: It has digits below the millisecond.
    """
    if value % _MILLISECOND:
        raise Unrepresentable("is a timedelta with digits below the millisecond, which Cedar cannot hold")
    return extension("duration", f"{value // _MILLISECOND}ms")


def _date(value: datetime.date) -> Any:
    raise Unrepresentable("is a date without time and time zone; Cedar knows only points in time")


def _ip6(value: ipaddress.IPv6Address) -> dict[str, Any]:
    if value.scope_id is not None:
        raise Unrepresentable("is an IPv6 address with a scope, which Cedar cannot hold")
    # Cedar refuses the ``::ffff:1.2.3.4`` spelling that str() gives from Python 3.13 on.
    return extension("ip", value.exploded)


def _ip6_network(value: ipaddress.IPv6Network) -> dict[str, Any]:
    return extension("ip", f"{value.network_address.exploded}/{value.prefixlen}")


def _ip4(value: ipaddress.IPv4Address | ipaddress.IPv4Network) -> dict[str, Any]:
    return extension("ip", str(value))


#: By exact type: a subclass (a pandas Timestamp, say) may hold digits that its base does not show.
SCALARS: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: long,
    float: float_decimal,
    Decimal: decimal,
    datetime.datetime: moment,
    datetime.timedelta: duration,
    datetime.date: _date,
    uuid.UUID: str,
    ipaddress.IPv4Address: _ip4,
    ipaddress.IPv4Network: _ip4,
    ipaddress.IPv6Address: _ip6,
    ipaddress.IPv6Network: _ip6_network,
}
