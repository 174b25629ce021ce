"""What follows the attempts at jobs: how each has ended, and how long it took."""

import threading
import time
from abc import abstractmethod

import dramatiq


class Attempts(dramatiq.Middleware):
    """Looks at the clock when a job begins, and tells `ended` when it has ended."""

    def __init__(self) -> None:
        self._began = threading.local()

    def before_process_message(self, _broker: dramatiq.Broker, _message: dramatiq.MessageProxy) -> None:
        """Look at the clock."""
        self._began.at = time.perf_counter()

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Look once more. A job that another middleware has failed comes without an exception."""
        seconds = time.perf_counter() - self._began.at
        self.ended(broker, message, seconds, failed=exception is not None or message.failed)

    @abstractmethod
    def ended(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy, seconds: float, *, failed: bool) -> None:
        """An attempt has ended after so many seconds. What has failed may be tried again."""
