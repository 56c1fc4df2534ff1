"""The taxonomy of errors: the class of an error says what the caller has to do, not where the error comes from.

Adapters translate the exceptions of libraries into these (``raise … from exc``). No message may contain a secret: the
texts of these errors reach logs, the pages and the terminal.
"""

from dataclasses import dataclass


class MonitorError(Exception):
    """Anything this program raises on purpose. The text says what is wrong and what to do next."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration."""

    path: str
    """The field (``broker.queue.type``) or the environment variable or file that holds it."""
    message: str
    """What is wrong and what would be right, without the value of a secret."""

    def __str__(self) -> str:
        """One line: the path and the message."""
        return f"{self.path}: {self.message}"


class ConfigError(MonitorError):
    """The configuration cannot be used; the caller ends with exit code 2. Carries every problem at once."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep all problems; the text is one line for each."""
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class PortUnavailableError(MonitorError):
    """The address cannot be listened on now, and perhaps in a moment: end with exit code 1, to be started again."""


class MalformedEventError(MonitorError):
    """A message, or one event in it, cannot be read: count it by reason, drop it, and continue with the rest."""


class SourceLostError(MonitorError):
    """The event stream was lost or could not be opened: reconnect with backoff, forever.

    ``remedy`` says what to do about a fault that does not go away by itself (permissions, a queue declared
    differently); None for other faults.
    """

    def __init__(self, message: str, remedy: str | None = None, *, hint: str | None = None) -> None:
        """``message``: what happened. ``remedy``: what to do. ``hint``: the same if the fault may go away by itself."""
        advice = remedy or hint
        super().__init__(message if advice is None else f"{message}: {advice}")
        self.remedy = remedy


class TasksRefusedError(SourceLostError):
    """The broker accepts events, including this one, but no tasks."""


class StoreUnavailableError(MonitorError):
    """The store cannot be read or written now (disk full, locked, down): keep everything and retry."""


class StoreFullError(StoreUnavailableError):
    """There is no space for a write (disk, quota, file size); a smaller write may still fit."""


class QueryTimeoutError(StoreUnavailableError):
    """A query was cancelled at the caller's deadline: ask for less. Says nothing about the state of the store."""


class StoreUnusableError(MonitorError):
    """The store cannot be used as it is (corrupt, written by a newer version, not writable): exit with code 1."""


class LeaseLostError(MonitorError):
    """Another process leads: stop at once, without a last flush. Nothing of the refused call was applied.

    No write to the store can succeed until ``lead`` obtains the lease again.
    """


class StoreMissingError(StoreUnusableError):
    """The store is still empty: a daemon has to start first. ``about``: which database it is."""

    def __init__(self, message: str, about: str) -> None:
        """``about`` contains no secrets."""
        super().__init__(message)
        self.about = about


class StoreInUseError(StoreUnusableError):
    """Another process has taken the store for itself. ``holder``: which one."""

    def __init__(self, location: str, holder: str, remedy: str) -> None:
        """``location`` and ``holder`` contain no secrets."""
        super().__init__(f"The store {location} is in use by another celery-monitor ({holder}): {remedy}")
        self.location = location
        self.holder = holder


class InvalidCursorError(MonitorError):
    """A cursor does not come from a page of this list: the request is invalid."""


class TooManySilencesError(MonitorError):
    """The maximum number of silences exists: end one first."""


class ProviderUnavailableError(MonitorError):
    """The OpenID provider does not answer, or answers incorrectly: nobody can sign in with it now."""


class SignInRefusedError(MonitorError):
    """The answer to a sign-in is not valid: the person has to sign in again."""


class DeliveryError(MonitorError):
    """A notification was not delivered."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        """``message``: what happened. ``remedy``: what somebody can do; not part of the error's text."""
        super().__init__(message)
        self.remedy = remedy


class RetryableError(DeliveryError):
    """Retry later. ``after``: seconds that the receiver asked to wait (``Retry-After``); None: use the backoff.

    ``needs_repair``: no attempt succeeds before somebody has repaired something, so retry rarely.
    """

    def __init__(
        self, message: str, after: float | None = None, *, remedy: str | None = None, needs_repair: bool = False
    ) -> None:
        """``after`` is in seconds."""
        super().__init__(message, remedy)
        self.after = after
        self.needs_repair = needs_repair


class InterruptedSendError(DeliveryError):
    """The request was interrupted because this process is stopping; it does not count as an attempt."""


class UncertainError(RetryableError):
    """The receiver may have accepted it. ``after`` is long, so that nobody gets many duplicates."""


class MaybeDeliveredError(DeliveryError):
    """It was sent as often as acceptable without a confirmation: the row gets an unknown outcome."""


class RejectedError(DeliveryError):
    """The receiver will never accept it as it is (HTTP 400, SMTP 5xx): the row is dead until somebody retries it."""
