from celery_monitor.core.fingerprint import Fingerprints
from celery_monitor.core.model import Delivery


def test_a_smaller_prefetch_forgets_nothing() -> None:
    """What was delivered under a larger prefetch is known when it comes again under a smaller one."""
    messages = [Delivery(b"%d" % number, redelivered=True) for number in range(50)]
    before = Fingerprints(kept=50)
    before.connected(acknowledges=True)
    for message in messages:
        before.is_repeated(message)

    after = Fingerprints(kept=5)
    after.restore(before.epoch, [(before.epoch, before.take())])
    after.connected(acknowledges=True)

    assert all(after.is_repeated(message) for message in messages)
