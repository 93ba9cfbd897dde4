"""What edgedec calls of TensorRT and of NVIDIA's driver is there, in every version that it is for.

The fakes of other tests say what edgedec expects; this compares it with the real bindings.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gpu.conformance import wheels
from tests.gpu.fakes import trt

from edgedec.devices.gpu import bindings, driver

pytestmark = pytest.mark.network

# "" is the module. A function has the arguments that edgedec gives it.
EVERYWHERE = {
    "": ["Builder", "OnnxParser", "Runtime"],
    "Builder": [
        "build_serialized_network(network, config)",
        "create_builder_config()",
        "create_network(flags)",
        "create_optimization_profile()",
    ],
    "DataType": ["BOOL", "FLOAT", "HALF", "INT32", "INT64"],
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "IBuilderConfig": ["add_optimization_profile(profile)", "set_flag(flag)"],
    "ICudaEngine": [
        "create_execution_context(strategy)",
        "get_aliased_input_tensor(name)",
        "get_tensor_dtype(name)",
        "get_tensor_location(name)",
        "get_tensor_mode(name)",
        "get_tensor_name(index)",
        "get_tensor_profile_shape(name, profile_index)",
        "get_tensor_shape(name)",
        "num_io_tensors",
        "num_optimization_profiles",
    ],
    "IExecutionContext": [
        "execute_async_v3(stream_handle)",
        "get_tensor_shape(name)",
        "infer_shapes()",
        "set_device_memory(memory, size)",
        "set_input_shape(name, shape)",
        "set_optimization_profile_async(profile_index, stream_handle)",
        "set_tensor_address(name, memory)",
        "update_device_memory_size_for_shapes()",
    ],
    "ILogger": ["log(severity, msg)"],
    "INetworkDefinition": ["get_input(index)", "num_inputs"],
    "IOptimizationProfile": ["set_shape(input, min, opt, max)"],
    "ITensor": ["name"],
    "OnnxParser": ["get_error(index)", "num_errors", "parse(model)", "parse_from_file(model)"],
    "ParserError": ["desc()", "node()", "node_name()", "node_operator()"],
    "Runtime": ["deserialize_cuda_engine(serialized_engine)"],
    "TensorIOMode": ["INPUT"],
    "TensorLocation": ["DEVICE"],
}
WITH_PLUGINS = {
    "": ["bfloat16", "float16"],
    "Logger": ["ERROR"],
    "NetworkDefinitionCreationFlag": ["PREFER_AOT_PYTHON_PLUGINS"],
}
TEN = {"NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"]}
RTX = {
    "": ["IRuntimeCache"],
    "BuilderFlag": ["REQUIRE_USER_ALLOCATION"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "IExecutionContext": ["is_stream_capturable(stream)"],
    "ICudaEngine": ["create_execution_context(runtime_config)", "create_runtime_config()"],
    "IRuntimeCache": ["deserialize(blob)", "serialize()"],
    "IRuntimeConfig": [
        "create_runtime_cache()",
        "dynamic_shapes_kernel_specialization_strategy",
        "set_execution_context_allocation_strategy(strategy)",
        "set_runtime_cache(cache)",
    ],
}
FAKES = {
    "Builder": trt.Builder,
    "IBuilderConfig": trt.Config,
    "ICudaEngine": trt.Engine,
    "IExecutionContext": trt.Context,
    "ILogger": trt.ILogger,
    "INetworkDefinition": trt.Network,
    "IOptimizationProfile": trt.Profile,
    "IRuntimeCache": trt.RuntimeCache,
    "IRuntimeConfig": trt.RuntimeConfig,
    "OnnxParser": trt.OnnxParser,
    "Runtime": trt.Runtime,
}
"""What stands for a class of TensorRT's in the tests of engines."""
DRIVER_ENUMS = {
    "CUdevice_attribute": [
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR",
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
    ],
    "CUevent_flags": ["CU_EVENT_DEFAULT"],
    "CUstreamCaptureMode": ["CU_STREAM_CAPTURE_MODE_THREAD_LOCAL"],
    "CUstream_flags": ["CU_STREAM_NON_BLOCKING"],
}


@pytest.fixture(scope="module", params=sorted(wheels.VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    """A version of TensorRT."""
    value: str = request.param
    return value


@pytest.fixture(scope="module")
def folder(version: str, pytestconfig: pytest.Config) -> Path:
    """Its bindings."""
    return wheels.bindings(version, pytestconfig)


def lacking(answer: list[object], version: str) -> object:
    assert str(answer[0]).startswith(version)
    return answer[1]


def test_tensorrt(folder: Path, version: str) -> None:
    tables = [EVERYWHERE, WITH_PLUGINS] + [TEN] * version.startswith("10")
    for table in tables:
        answer = wheels.run(folder, "members.py", "tensorrt", stdin=table)
        assert lacking(answer, version) == []


def test_the_table_has_what_the_fakes_stand_for() -> None:
    known = {
        f"{owner}.{member.partition('(')[0]}"
        for table in (EVERYWHERE, WITH_PLUGINS, TEN, RTX)
        for owner, members in table.items()
        for member in members
    }
    faked = {
        f"{owner}.{name}"
        for owner, fake in FAKES.items()
        for name, value in vars(fake).items()
        if callable(value) and not name.startswith("_")
    }
    assert faked
    assert faked <= known


def test_tensorrt_has_no_member_that_none_has(folder: Path, version: str) -> None:
    table = {"": ["Nothing"], "ILogger": ["nothing"], "Runtime": ["deserialize_cuda_engine(a, b)"]}
    answer = wheels.run(folder, "members.py", "tensorrt", stdin=table)
    assert [text.split(" ")[0] for text in answer[1]] == [
        ".Nothing",
        "ILogger.nothing",
        "Runtime.deserialize_cuda_engine(a,",
    ]


@pytest.mark.parametrize("table", [EVERYWHERE, RTX])
def test_tensorrt_rtx(table: dict[str, list[str]]) -> None:
    if not wheels.installed("tensorrt_rtx"):
        pytest.skip("tensorrt-rtx is not installed")
    answer = wheels.run_here("members.py", "tensorrt_rtx", stdin=table)
    assert lacking(answer, "1.") == []


def test_only_tensorrt_rtx_has_a_cache_of_kernels(folder: Path) -> None:
    # Contexts are made in another way where it is there.
    answer = wheels.run(folder, "members.py", "tensorrt", stdin={"": ["IRuntimeCache"]})
    assert answer[1] == [".IRuntimeCache is missing"]


def test_the_versions_serve(version: str) -> None:
    least = bindings.PACKAGES["tensorrt"].least
    assert tuple(map(int, version.split("."))) >= least


def test_cuda_bindings() -> None:
    cuda = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    assert [name for name in driver.CALLS if not hasattr(cuda, name)] == []
    for owner, members in DRIVER_ENUMS.items():
        assert [name for name in members if not hasattr(getattr(cuda, owner), name)] == []
