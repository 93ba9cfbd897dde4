"""Which distributions of ONNX Runtime are installed: one may be, as all own the same files."""

from __future__ import annotations

from importlib.metadata import distributions

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
"""Each brings the module ``onnxruntime``; onnxruntime-qnn adds to it, and is none of them."""
CUDA = "'onnxruntime-gpu[cuda,cudnn]'"
"""With it come the libraries of CUDA that it calls; the driver does not."""


def installed() -> dict[str, str]:
    """The distributions that are installed -> version."""
    found = {name: next(iter(distributions(name=name)), None) for name in DISTRIBUTIONS}
    return {name: there.version for name, there in found.items() if there is not None}


def clash() -> tuple[str, str] | None:
    """What is wrong if several are installed, without a full stop, and the command that mends it.

    The one that was installed last has overwritten files of the others, and pip removes a
    distribution's files whoever wrote them last: all must go before one comes back.
    """
    found = installed()
    if len(found) < 2:
        return None
    others = [name for name in found if name != "onnxruntime"]
    wanted = CUDA if others[-1] == "onnxruntime-gpu" else others[-1]
    what = f"{' and '.join(found)} are installed over each other, which breaks both"
    return what, f"pip uninstall -y {' '.join(found)} && pip install {wanted}"
