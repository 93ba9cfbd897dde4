"""What is done to an ordinary bundle, before it appears, for another device than the CPU."""

from __future__ import annotations

from typing import Protocol

from edgedec.export.bundle import Progress
from edgedec.runtime.bundle import Bundle
from edgedec.runtime.manifest import Manifest


class Finish(Protocol):
    """The last step of an export, which has its say at the beginning too."""

    def check(self, manifest: Manifest) -> None:
        """Refuse a model before work starts; its files are not listed yet.

        Raises:
            InputError: what was asked for does not suit it.
        """

    def finish(self, bundle: Bundle, progress: Progress) -> Manifest:
        """Change the manifest of a bundle whose files are written.

        Args:
            bundle: its folder has no manifest yet.
            progress: told what is being done.

        Raises:
            CheckFailedError: the device would compute other numbers.
        """
