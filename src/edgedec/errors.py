"""The errors edgedec raises on purpose.

The message of each is one sentence for the user: what failed, in which file or component, and what
to do about it. The command line prints it after `Error:` and exits with `exit_code`; anything that
is not an `EdgedecError` is a defect of edgedec and keeps its traceback.
"""


class EdgedecError(Exception):
    """Base of every error a caller may want to catch."""

    exit_code: int = 2


class CheckpointError(EdgedecError):
    """A checkpoint is missing, damaged, incomplete, or of an unsupported architecture."""


class BundleError(EdgedecError):
    """A bundle is missing, damaged, or was written for a version this one does not read."""


class InputError(EdgedecError):
    """A prompt, option or input file cannot be used."""


class MissingDependencyError(EdgedecError):
    """An optional package is needed; the message names the extra that installs it."""

    exit_code = 3


class DeviceError(EdgedecError):
    """The requested device or execution provider is not available here."""

    exit_code = 3


class MissingDeviceError(DeviceError):
    """The device, or the software for it, is not on this machine, whatever it should run."""


class CheckFailedError(EdgedecError):
    """A verification ran and found a difference: parity, checksums, a performance gate."""

    exit_code = 1
