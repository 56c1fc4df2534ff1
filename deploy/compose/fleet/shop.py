#!/usr/bin/env python3
"""A small shop's tasks. Some fail, some are slow, some are retried: there is something to see."""
# ruff: noqa: ARG001, PLR2004, S311 - the chances of a demonstration

import os
import random
import time

from celery import Celery, Task

app = Celery("shop", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_ignore_result=True,
    task_send_sent_event=True,
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    task_routes={"shop.billing.*": {"queue": "billing"}, "shop.mail.*": {"queue": "mail"}},
)


class CardDeclinedError(Exception):
    """The bank says no."""


@app.task(name="shop.billing.charge", bind=True, max_retries=2)
def charge(self: Task, order: int) -> None:
    """Fails now and then for good, and more often for a moment."""
    time.sleep(random.uniform(0.05, 0.4))
    chance = random.random()
    if chance < 0.03:
        raise CardDeclinedError(f"card declined for order {order}")
    if chance < 0.08:
        raise self.retry(exc=ConnectionError("payment gateway unreachable"), countdown=2)


@app.task(name="shop.billing.invoice")
def invoice(order: int) -> None:
    """Always works."""
    time.sleep(random.uniform(0.1, 0.3))


@app.task(name="shop.mail.send")
def send(order: int) -> None:
    """The mail server is away for a while in every quarter of an hour."""
    time.sleep(random.uniform(0.01, 0.2))
    if time.localtime().tm_min % 15 == 7 and random.random() < 0.5:
        raise TimeoutError("mail.example.com did not answer")


@app.task(name="shop.search.index", soft_time_limit=2)
def index(order: int) -> None:
    """Sometimes takes too long."""
    time.sleep(3 if random.random() < 0.02 else random.uniform(0.01, 0.5))


@app.task(name="shop.report.build", time_limit=20)
def build(order: int) -> None:
    """Slow."""
    time.sleep(random.expovariate(1 / 3))
