"""NVIDIA GPUs through TensorRT, which keeps codes as they are by our plugin."""

from __future__ import annotations

from edgedec.devices.gpu.engine import Form
from edgedec.devices.gpu.engine_device import EngineDevice
from edgedec.errors import InputError

FORMS: tuple[Form, ...] = ("plugin", "native")
VERIFIED = (
    "never executed on a GPU: the plugin's callbacks were run with TensorRT's own bindings, "
    "engines with a stand-in for TensorRT"
)


def device(option: str | None, allow_fallback: bool) -> EngineDevice:  # noqa: ARG001 - there is none
    """TensorRT.

    Args:
        option: ``plugin`` or ``native``; None for the plugin, and without it where it fails.
        allow_fallback: without effect: an engine runs as a whole.

    Raises:
        InputError: there is no such option.
    """
    forms = FORMS if option is None else tuple(form for form in FORMS if form == option)
    if not forms:
        raise InputError(
            f"the device 'tensorrt' has no option {option!r}; there are: {', '.join(FORMS)}."
        )
    return EngineDevice("tensorrt", "TensorRT", forms, portable=False, verified=VERIFIED)
