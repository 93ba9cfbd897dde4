"""All ways to quantize matrices, by name. Their modules are imported when they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from edgedec.quantize.codebook import CodebookTensor
from edgedec.quantize.method import Array, Method, Quantized, Settings
from edgedec.quantize.pool import Pool
from edgedec.quantize.size import block_bits, stored_bits
from edgedec.quantize.statistics import Statistics

Function = Callable[[Sequence[Array], Statistics, int, Settings, Pool], list[Quantized]]


def _each(one: Callable[[Array, Statistics, int], Quantized]) -> Function:
    """A method that treats each matrix by itself, in a thread of its own."""

    def function(
        weights: Sequence[Array], statistics: Statistics, bits: int, _: Settings, pool: Pool
    ) -> list[Quantized]:
        return pool.map(lambda weight: one(weight, statistics, bits), weights)

    return function


def _stored(tensor: CodebookTensor) -> Quantized:
    return Quantized(tensor, None, stored_bits(tensor))


def _rtn(weight: Array, _: Statistics, bits: int) -> Quantized:
    from edgedec.quantize.baselines.nearest import round_to_all, round_to_nearest

    return _stored(round_to_nearest(weight) if bits == 8 else round_to_all(weight, bits))


def _rtn_blocks(weight: Array, _: Statistics, bits: int) -> Quantized:
    from edgedec.quantize.baselines.nearest import BLOCK, round_to_blocks

    values = round_to_blocks(weight, bits)
    return Quantized(None, values, block_bits(weight.shape[1], bits, BLOCK))


def _nf4(weight: Array, _: Statistics, _bits: int) -> Quantized:
    from edgedec.quantize.baselines.normal_float import normal_float_rows

    return _stored(normal_float_rows(weight))


def _nf4_blocks(weight: Array, _: Statistics, bits: int) -> Quantized:
    from edgedec.quantize.baselines.normal_float import BLOCK, normal_float_blocks

    values = normal_float_blocks(weight)
    return Quantized(None, values, block_bits(weight.shape[1], bits, BLOCK))


def _kmeans(weight: Array, _: Statistics, bits: int) -> Quantized:
    from edgedec.quantize.baselines.kmeans import kmeans

    return _stored(kmeans(weight, bits))


def _kmeans_rows(weight: Array, statistics: Statistics, bits: int) -> Quantized:
    from edgedec.quantize.baselines.kmeans_rows import kmeans_rows, row_table_bits

    values = kmeans_rows(weight, statistics.plain.diagonal(), bits)
    return Quantized(None, values, row_table_bits(weight.shape[1], bits))


def _gptq(
    weights: Sequence[Array], statistics: Statistics, bits: int, settings: Settings, pool: Pool
) -> list[Quantized]:
    from edgedec.quantize.baselines.gptq import gptq

    return [_stored(t) for t in gptq(weights, statistics, bits, settings, pool)]


def _gptq_blocks(
    weights: Sequence[Array], statistics: Statistics, bits: int, settings: Settings, pool: Pool
) -> list[Quantized]:
    from edgedec.quantize.baselines.gptq import BLOCK, gptq_blocks

    results = gptq_blocks(weights, statistics, bits, settings, pool)
    return [Quantized(None, v, block_bits(v.shape[1], bits, BLOCK)) for v in results]


def _gptq_codebook(
    weights: Sequence[Array], statistics: Statistics, bits: int, settings: Settings, pool: Pool
) -> list[Quantized]:
    from edgedec.quantize.baselines.gptq import gptq_codebook

    return [_stored(t) for t in gptq_codebook(weights, statistics, bits, settings, pool)]


def _jlcm(
    weights: Sequence[Array], statistics: Statistics, bits: int, settings: Settings, pool: Pool
) -> list[Quantized]:
    from edgedec.quantize.jlcm import jlcm

    return jlcm(weights, statistics, bits, settings, pool)


LOW = (2, 3, 4)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                "jlcm",
                "codebooks, scales and codes fitted to the outputs in turn",
                bits=LOW,
                calibrated=True,
                stored=True,
                sequential=True,
                function=_jlcm,
            ),
            Method(
                "rtn",
                "nearest of even levels, a scale per row",
                bits=(*LOW, 8),
                calibrated=False,
                stored=True,
                sequential=False,
                function=_each(_rtn),
            ),
            Method(
                "rtn-block32",
                "nearest of even levels, a float16 scale per 32 weights (as Q4_0)",
                bits=LOW,
                calibrated=False,
                stored=False,
                sequential=False,
                function=_each(_rtn_blocks),
            ),
            Method(
                "nf4",
                "nearest of the levels of NF4, a scale per row",
                bits=(4,),
                calibrated=False,
                stored=True,
                sequential=False,
                function=_each(_nf4),
            ),
            Method(
                "nf4-block64",
                "nearest of the levels of NF4, a float16 scale per 64 weights",
                bits=(4,),
                calibrated=False,
                stored=False,
                sequential=False,
                function=_each(_nf4_blocks),
            ),
            Method(
                "kmeans",
                "codebooks of 64 rows, by the weights alone",
                bits=LOW,
                calibrated=False,
                stored=True,
                sequential=False,
                function=_each(_kmeans),
            ),
            Method(
                "kmeans-rows",
                "int8 levels and a float16 scale for every row, weighted by inputs",
                bits=LOW,
                calibrated=True,
                stored=False,
                sequential=False,
                function=_each(_kmeans_rows),
            ),
            Method(
                "gptq",
                "even levels, a scale per row, errors made up for by later columns",
                bits=LOW,
                calibrated=True,
                stored=True,
                sequential=True,
                function=_gptq,
            ),
            Method(
                "gptq-block32",
                "GPTQ with a float16 scale per 32 weights",
                bits=LOW,
                calibrated=True,
                stored=False,
                sequential=True,
                function=_gptq_blocks,
            ),
            Method(
                "gptq-codebook",
                "GPTQ on the codebooks of kmeans",
                bits=LOW,
                calibrated=True,
                stored=True,
                sequential=True,
                function=_gptq_codebook,
            ),
        )
    }
)
"""Name -> method, the one to use first."""
