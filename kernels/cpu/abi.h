// The part of ONNX Runtime's C interface that this library uses.
//
// The interface is a table of functions whose order never changes: a release only appends to it. So
// a function is known by its place, and no header of ONNX Runtime is needed. Places and signatures
// are those of `OrtApi` and `OrtCustomOp` in onnxruntime_c_api.h, interface version 24.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtShapeInferContext;

struct OrtApi {
  void* function[1];  // as many as the runtime's version has
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// What a custom operator tells of itself; `version` says how many of the members exist.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};

}  // extern "C"

static_assert(sizeof(OrtCustomOp) == 26 * sizeof(void*), "the layout of OrtCustomOp");

namespace edgedec {

constexpr uint32_t kApiVersion = 24;
constexpr uint32_t kCustomOpVersion = 17;  // members up to GetEndVersion are filled in

enum ElementType : int { kFloat = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kInt64 = 7 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum StatusCode : int { kFail = 1, kInvalidArgument = 2 };

// Places in OrtApi, each with the type of the function found there.
template <int Place, class Signature>
struct Entry {
  static constexpr int place = Place;
  using Function = Signature*;
};

namespace api {
using CreateStatus = Entry<0, OrtStatus*(int, const char*)>;
using CreateCustomOpDomain = Entry<26, OrtStatus*(const char*, OrtCustomOpDomain**)>;
using CustomOpDomainAdd = Entry<27, OrtStatus*(OrtCustomOpDomain*, const OrtCustomOp*)>;
using AddCustomOpDomain = Entry<28, OrtStatus*(OrtSessionOptions*, OrtCustomOpDomain*)>;
using GetTensorMutableData = Entry<51, OrtStatus*(OrtValue*, void**)>;
using AttributeFloat = Entry<85, OrtStatus*(const OrtKernelInfo*, const char*, float*)>;
using AttributeInt = Entry<86, OrtStatus*(const OrtKernelInfo*, const char*, int64_t*)>;
using AttributeString = Entry<87, OrtStatus*(const OrtKernelInfo*, const char*, char*, size_t*)>;
using GetInputCount = Entry<88, OrtStatus*(const OrtKernelContext*, size_t*)>;
using GetInput = Entry<90, OrtStatus*(const OrtKernelContext*, size_t, const OrtValue**)>;
using GetOutput =
    Entry<91, OrtStatus*(OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**)>;
using ReleaseStatus = Entry<93, void(OrtStatus*)>;
using AttributeInts = Entry<163, OrtStatus*(const OrtKernelInfo*, const char*, int64_t*, size_t*)>;
using InfoInputCount = Entry<230, OrtStatus*(const OrtKernelInfo*, size_t*)>;
using ConstantInput =
    Entry<249, OrtStatus*(const OrtKernelInfo*, size_t, int*, const OrtValue**)>;
using ParallelFor =
    Entry<274, OrtStatus*(const OrtKernelContext*, void (*)(void*, size_t), size_t, size_t, void*)>;
using TypeAndShape = Entry<414, OrtStatus*(const OrtValue*, int*, const int64_t**, size_t*)>;
}  // namespace api

}  // namespace edgedec
