"""Errors that a person can act on. Each says what was found, what was expected and what to change.

SparError                    exit code
  ConfigError                2   the config or the command line
  DataError                  2   prompt files, model folders
  StepError                  1   a step of a round failed
    StepTimeout              1   it took too long, or made no progress
    NotANumber               1   a loss or a log-prob is NaN or infinite
    ProbeError               1   engine and trainer disagree on the same weights
  StoreError                 1   the store rejected an operation
    StoreBusy                3   another process held the store for too long
    StoreTooNew              2   written by a newer version
    StoreTooOld              2   written by a version that is too old
  EnvironmentProblem         4   something is missing on this machine
  SavedAndLeft              75   the run was asked to save and leave (SIGUSR1); running it again resumes it
"""


class SparError(Exception):
    """Base of all errors with a remedy. The command line exits with `exit_code`."""

    exit_code = 1


class ConfigError(SparError, ValueError):
    exit_code = 2


class DataError(SparError, ValueError):
    exit_code = 2


class StepError(SparError, RuntimeError):
    exit_code = 1


class StepTimeout(StepError, TimeoutError):
    pass


class NotANumber(StepError, ArithmeticError):
    pass


class ProbeError(StepError):
    pass


class StoreError(SparError):
    exit_code = 1


class StoreBusy(StoreError, TimeoutError):
    exit_code = 3


class StoreTooNew(StoreError):
    exit_code = 2


class StoreTooOld(StoreError):
    exit_code = 2


class EnvironmentProblem(SparError, RuntimeError):
    exit_code = 4


class SavedAndLeft(SparError):
    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later
