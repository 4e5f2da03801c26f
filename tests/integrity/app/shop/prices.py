"""What things cost."""

LIMIT = 500


def price(count: int) -> int:
    return 3 * count
