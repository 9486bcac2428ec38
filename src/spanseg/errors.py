"""The one exception that users see: a sentence that says what was expected, what came and what to do."""


class SpansegError(Exception):
    """Bad input or a request that cannot be met; the command line prints it without a traceback and exits with 2."""
