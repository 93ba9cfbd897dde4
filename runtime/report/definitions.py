"""What metrics mean, in a line each; docs/metrics.md has the formulas."""

from __future__ import annotations

DEFINITIONS = {
    "tokenize_ms": "Text to tokens.",
    "prepare_ms": "Checking lengths, and setting up the search.",
    "encode_ms": "The encoder, once per request.",
    "cross_kv_ms": "Keys and values of the encoder's states for the decoder, in the run with "
    "records.",
    "first_step_ms": "The decoder's first step, up to its token.",
    "ttft_ms": "Time to first token: from the request to its first token; none of a batch whose "
    "inputs are taken one by one.",
    "tpot_ms": "Time per output token: (end to end - TTFT) / (tokens - 1); none of such a batch.",
    "tokens_per_s": "Steady speed: tokens of steps after the first / the time of these steps.",
    "inputs_per_s": "Inputs of a request / its time end to end.",
    "e2e_ms": "End to end: the whole request, text to text or tokens to tokens.",
    "load_ms": "Opening the bundle: reading, checking, sessions, tokenizer.",
    "imports_ms": "From the start of the process until edgedec and ONNX Runtime are imported.",
    "cold_start_ms": "From the start of a process to its first token, files not in memory.",
    "warm_start_ms": "From the start of a process to its first token, files in memory.",
    "peak_rss_mb": "The most memory that was resident.",
    "steady_rss_mb": "Resident memory after the last request.",
    "steady_file_mb": "Of that, pages of files, such as mapped weights, which the system can drop.",
    "steady_anonymous_mb": "Of that, all other pages.",
    "cache_mb": "Keys and values of the decoder's own tokens.",
    "cross_mb": "Keys and values of the encoder's states.",
    "bytes_per_weight": "Bytes of the graphs and their weights / number of weights.",
    "read_mb_per_token": "Weights, keys and values that are read for a token after the first.",
    "bandwidth_fraction": "Bytes read per second while decoding / measured memory bandwidth.",
    "mean_layers": "Decoder layers that ran per token of steps after the first; those of drafts, "
    "also of rejected ones, count, so it can be more than the model has.",
    "acceptance": "Accepted / drafted tokens.",
    "energy_mj_per_token": "Energy of the processor's package per generated token.",
    "run_ms": "This graph, per step after the first.",
    "plan_ms": "The depth policy's own work, per step after the first.",
    "search_ms": "Choosing tokens, per step after the first.",
    "detokenize_ms": "Tokens to text.",
}


def definition(metric: str) -> str | None:
    """Of a metric; of ``run_ms[decoder]`` as of ``run_ms``; None of an unknown one."""
    return DEFINITIONS.get(metric.partition("[")[0])
