"""What aiohttp says of requests: our own mistakes with their traceback, and of what strangers send no byte."""

import logging
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError

from wattkeeper.system.sparing import Sparing


class RequestLog(logging.LoggerAdapter[logging.Logger]):
    """For ``AppRunner(logger=…)``: anybody on the node could fill the journal with what is no HTTP, byte by byte."""

    def __init__(self, log: logging.Logger, sparing: Sparing) -> None:
        super().__init__(log)
        self._sparing = sparing

    def exception(self, msg: object, *words: object, exc_info: Any = True, **more: Any) -> None:
        """As ``Logger.exception``; of a request that is none it is said that there was one, once a minute."""
        if isinstance(exc_info, HttpProcessingError):
            self._sparing.warn("no HTTP", "refused a request that is no HTTP")
        else:
            super().exception(msg, *words, exc_info=exc_info, **more)
