"""The taxonomy of errors: what the caller does with one decides its class, not where it comes from.

Foreign exceptions end at the adapters and become one of these (``raise … from exc``). No message here may hold a
secret: texts of these errors reach logs, the page and the terminal.
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
    """A message or one event of it cannot be read: it is counted by its reason and dropped, the rest goes on."""


class SourceLostError(MonitorError):
    """The event stream is gone or could not be opened: reconnect with backoff, for ever.

    ``remedy`` is what a person should do when the fault does not go away by itself (permissions, a queue declared
    differently), else None.
    """

    def __init__(self, message: str, remedy: str | None = None, *, hint: str | None = None) -> None:
        """``message`` says what happened, ``remedy`` what to do; ``hint`` the same for what may pass by itself."""
        advice = remedy or hint
        super().__init__(message if advice is None else f"{message}: {advice}")
        self.remedy = remedy


class TasksRefusedError(SourceLostError):
    """The broker carries events, also this one, and takes no tasks."""


class StoreUnavailableError(MonitorError):
    """The store cannot be read or written now (disk full, locked, down): keep everything and try again."""


class StoreFullError(StoreUnavailableError):
    """There is no space for a write (disk, quota, file size): a smaller one may still fit."""


class QueryTimeoutError(StoreUnavailableError):
    """A query was ended at its caller's deadline: ask for less. It says nothing about the store's state."""


class StoreUnusableError(MonitorError):
    """The store will never work as it is (corrupt, written by a newer version, not writable): end with exit code 1."""


class LeaseLostError(MonitorError):
    """Another process leads now: stop at once, without a last flush. Nothing of the refused call was applied.

    Neither this call nor any other one of the store that writes can succeed before ``lead`` gives the lease again.
    """


class StoreMissingError(StoreUnusableError):
    """Nothing is stored there yet: a daemon has to start first. ``about``: which database it is."""

    def __init__(self, message: str, about: str) -> None:
        """``about`` is without secrets."""
        super().__init__(message)
        self.about = about


class InvalidCursorError(MonitorError):
    """A page of a list was asked for by a cursor that no page of this list gave: the caller's request is at fault."""


class TooManySilencesError(MonitorError):
    """There are as many silences as are kept: a person has to end one first."""


class ProviderUnavailableError(MonitorError):
    """The OpenID provider does not answer, or not as one: nobody can sign in there now."""


class SignInRefusedError(MonitorError):
    """What came back from a sign-in proves nothing: the person has to sign in again."""


class DeliveryError(MonitorError):
    """A notification was not delivered."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        """``message`` says what happened; ``remedy``, which is no part of the text, what a person can do."""
        super().__init__(message)
        self.remedy = remedy


class RetryableError(DeliveryError):
    """Try again later. ``after``: seconds the receiver asked to wait (``Retry-After``), or None for the backoff.

    ``needs_repair``: no attempt succeeds before a person has repaired something, so attempts are rare.
    """

    def __init__(
        self, message: str, after: float | None = None, *, remedy: str | None = None, needs_repair: bool = False
    ) -> None:
        """``after`` is in seconds."""
        super().__init__(message, remedy)
        self.after = after
        self.needs_repair = needs_repair


class InterruptedSendError(DeliveryError):
    """This program is being stopped and has ended the request: that is no attempt of the receiver's."""


class UncertainError(RetryableError):
    """The receiver may have it: nobody knows. ``after`` is long, so that nobody gets the same again and again."""


class MaybeDeliveredError(DeliveryError):
    """It was sent as often as is bearable, and nobody knows whether it was delivered: the row is of unknown outcome."""


class RejectedError(DeliveryError):
    """The receiver will never take it as it is (400, 5xx of SMTP): the row is dead until a person retries it."""
