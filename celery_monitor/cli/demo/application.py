"""The shop's Celery application: copies its code to where the user can read it, and configures it."""

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from celery import Celery

BROKER: Final = "memory://localhost/"
DEFAULT: Final = "default"
PAYMENTS: Final = "payments"
MAIL: Final = "mail"
IMAGES: Final = "images"
_PACKAGE: Final = "shop"
_MODULES: Final = ("catalog", "images", "mail", "orders", "payments", "reports", "stock")
NIGHTLY: Final = "shop.reports.nightly"
COUNT: Final = "shop.stock.count"


class Shop:
    """The package ``shop``, copied to a directory. One per process."""

    def __init__(self, directory: Path) -> None:
        """Copy the code and import it."""
        code = directory / "app" / _PACKAGE
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(__file__).parent / _PACKAGE, code, ignore=ignored)
        self.code: Final = code
        _import(code)
        self._pace = importlib.import_module(f"{_PACKAGE}.pace").pace
        for module in _MODULES:
            importlib.import_module(f"{_PACKAGE}.{module}")

    def app(self) -> Celery:
        """A new Celery application with all tasks."""
        app = Celery(_PACKAGE, broker=BROKER, set_as_current=False)
        app.conf.update(
            broker_transport_options={"polling_interval": 0.02},
            broker_connection_retry_on_startup=False,
            task_default_queue=DEFAULT,
            task_routes={
                "shop.payments.*": {"queue": PAYMENTS},
                "shop.mail.*": {"queue": MAIL},
                "shop.images.*": {"queue": IMAGES},
            },
            task_send_sent_event=True,
            task_ignore_result=True,
            worker_hijack_root_logger=False,
            worker_prefetch_multiplier=1,
        )
        app.finalize()
        return app

    def break_when(self, broken: Callable[[], Collection[str]]) -> None:
        """``broken`` returns the parts that are broken now: see ``shop/pace.py``."""
        self._pace.broken = broken

    def hurry(self, *, instant: bool) -> None:
        """``instant``: tasks take no time."""
        self._pace.instant = instant

    def end(self) -> None:
        """Make all running tasks end at once."""
        self._pace.stopping.set()


def _import(code: Path) -> Any:  # noqa: ANN401 - a module
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, code / "__init__.py", submodule_search_locations=[str(code)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{code} is not a package")
    module = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
