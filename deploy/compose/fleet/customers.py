#!/usr/bin/env python3
"""Orders that come in, a few a second, more in some minutes than in others."""
# ruff: noqa: PLR2004, S311 - the chances of a demonstration

import itertools
import random
import time

import shop


def main() -> None:
    """Send tasks for ever."""
    for order in itertools.count(1):
        shop.charge.delay(order)
        shop.invoice.apply_async((order,), countdown=random.choice((0, 0, 5)))
        shop.send.delay(order)
        shop.index.delay(order)
        if order % 20 == 0:
            shop.build.delay(order)
        busy = 4 if time.localtime().tm_min % 10 < 3 else 1
        time.sleep(random.expovariate(2 * busy))


if __name__ == "__main__":
    main()
