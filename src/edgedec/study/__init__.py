"""The question of "Return of the Encoder" (arXiv 2501.16273), asked on this device.

`study` measures an encoder-decoder and a decoder-only model of equal size; `render` shows the
result.
"""

from edgedec.study.measure import study
from edgedec.study.record import Study
from edgedec.study.report import render

__all__ = ["Study", "render", "study"]
