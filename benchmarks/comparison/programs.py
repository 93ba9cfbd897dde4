"""The programs that ``peers.py`` compares, as data: where each lives and how it is prepared."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Home:
    """An environment of its own.

    Attributes:
        name: of its folder.
        packages: what is installed, one after another: torch first, so that nothing else chooses
            its build.
        variables: environment variables of the installation.
    """

    name: str
    packages: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """One program of the comparison.

    Attributes:
        script: file in ``programs/``.
        home: where it is installed; None for the environment that ``peers.py`` runs in.
        suffix: what the converted model's name adds to the checkpoint's.
        prepare: commands that convert; ``{checkpoint}`` is what the converted models' names begin
            with, ``{model}`` what they write, ``{converters}`` the folder of our scripts.
        setting: passed to the script.
        files: which of the model's files the program needs, as patterns.
    """

    script: str
    home: Home | None
    suffix: str
    prepare: tuple[str, ...]
    setting: str = ""
    files: tuple[str, ...] = ("*",)


CTRANSLATE2 = Home(
    "ctranslate2", (TORCH, "transformers<5", "ctranslate2", "protobuf", "sentencepiece")
)
OPTIMUM = Home("optimum", (TORCH, "transformers<4.58", "optimum-onnx", "onnxruntime"))
LLAMA_CPP = Home(
    "llama-cpp",
    ("gguf", "safetensors", "llama-cpp-python"),  # the last compiles: cmake and a compiler
    {"CMAKE_ARGS": "-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF"},
)
DYNAMIC_INT8 = "--arm64" if platform.machine() in ("aarch64", "arm64") else "--avx512_vnni"
"""optimum's preset. On x86 the one for AVX2 gives the same graphs with 7-bit weights."""


def _edgedec(quant: str) -> Program:
    return Program(
        "edgedec_bundle.py",
        None,
        f".edgedec-{quant}",
        (
            *("edgedec", "export", "{checkpoint}", "-o", "{model}", "--force"),
            *(() if quant == "fp32" else ("--quant", quant)),
        ),
    )


def _ctranslate2(kind: str) -> Program:
    return Program(
        "ctranslate2_model.py",
        CTRANSLATE2,
        f".ctranslate2-{kind}",
        (
            *("ct2-transformers-converter", "--model", "{checkpoint}"),
            *("--output_dir", "{model}", "--quantization", kind, "--force"),
        ),
        setting=kind,
    )


def _llama_cpp(kind: str) -> Program:
    return Program(
        "llama_cpp_model.py",
        LLAMA_CPP,
        f".{kind}.gguf",
        ("python", "{converters}/to_gguf.py", "{checkpoint}", "{model}", kind),
    )


# In this order, because some convert what another one wrote.
PROGRAMS = {
    **{f"edgedec {q}": _edgedec(q) for q in ("fp32", "int8", "cb4", "cb3", "cb2")},
    "CTranslate2 float32": _ctranslate2("float32"),
    "CTranslate2 int8": _ctranslate2("int8"),
    "optimum-onnx fp32": Program(
        "optimum_model.py",
        OPTIMUM,
        ".optimum",
        (
            *("optimum-cli", "export", "onnx", "--model", "{checkpoint}"),
            *("--task", "text2text-generation-with-past", "{model}"),
        ),
        files=("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"),
    ),
    "optimum-onnx int8": Program(
        "optimum_model.py",
        OPTIMUM,
        ".optimum-int8",
        (
            *("optimum-cli", "onnxruntime", "quantize", DYNAMIC_INT8),
            *("--onnx_model", "{checkpoint}.optimum", "-o", "{model}"),
        ),
        setting="_quantized",
        files=(
            "encoder_model_quantized.onnx",
            "decoder_model_quantized.onnx",
            "decoder_with_past_model_quantized.onnx",
        ),
    ),
    "llama.cpp Q4_0": _llama_cpp("Q4_0"),
    "llama.cpp Q8_0": _llama_cpp("Q8_0"),
    "MatMulNBits 4-bit, our graph": Program(
        "nbits_graphs.py",
        None,
        ".nbits4",
        ("python", "{converters}/to_nbits.py", "{checkpoint}.edgedec-fp32", "{model}"),
    ),
}
