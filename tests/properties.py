"""How many examples a property test makes: few in `make test`, and many times as many in `make campaign`.

Campaigns run all tests with hypothesis, whether or not they are marked: see ``tests/conftest.py``.
"""

from typing import Final

import hypothesis

CAMPAIGN: Final = "campaign"
"""The profile of campaigns."""
_TIMES: Final = 50


def register() -> None:
    """Make the profiles.

    A deadline of an example measures the machine, as does the time that examples take to make.
    """
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("timeless", deadline=None, suppress_health_check=slow)
    hypothesis.settings.register_profile(
        CAMPAIGN, deadline=None, suppress_health_check=slow, max_examples=100 * _TIMES, print_blob=True
    )


def examples(number: int) -> int:
    """So many, for ``settings(max_examples=...)``; in a campaign many times as many."""
    return number * _TIMES if hypothesis.settings.get_current_profile_name() == CAMPAIGN else number
