// ONNX Runtime as this library sees it: tensors, attributes and statuses, every call checked.
//
// Errors travel as `Error` inside of the library and become an OrtStatus at its border
// (`guarded`), which no exception crosses.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>

#include "abi.h"

namespace edgedec {

class Error : public std::exception {
 public:
  explicit Error(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

extern const OrtApi* g_api;  // set once, before any kernel exists

template <class E, class... Arguments>
auto call(Arguments... arguments) {
  return reinterpret_cast<typename E::Function>(g_api->function[E::place])(arguments...);
}

// Turns a status that is not "ok" into an Error, which keeps only its place: the runtime's own
// statuses for these calls say nothing that a user could act on.
void check(OrtStatus* status, const char* what);

constexpr size_t kMaxRank = 8;

struct Shape {
  int64_t dims[kMaxRank] = {};
  size_t rank = 0;

  int64_t last() const { return rank ? dims[rank - 1] : 1; }
  int64_t size() const {
    int64_t n = 1;
    for (size_t i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  bool is(std::initializer_list<int64_t> wanted) const {  // -1: any
    if (rank != wanted.size()) return false;
    size_t i = 0;
    for (int64_t axis : wanted) {
      if (axis >= 0 && dims[i] != axis) return false;
      ++i;
    }
    return true;
  }
};

template <class T>
struct Tensor {
  T* data = nullptr;
  Shape shape;
  explicit operator bool() const { return data != nullptr; }
};

template <class T>
constexpr ElementType element_type() {
  using V = std::remove_const_t<T>;
  static_assert(std::is_same_v<V, float> || std::is_same_v<V, uint8_t> ||
                std::is_same_v<V, int8_t> || std::is_same_v<V, int32_t> ||
                std::is_same_v<V, int64_t>);
  if constexpr (std::is_same_v<V, float>) return kFloat;
  if constexpr (std::is_same_v<V, uint8_t>) return kUint8;
  if constexpr (std::is_same_v<V, int8_t>) return kInt8;
  if constexpr (std::is_same_v<V, int32_t>) return kInt32;
  return kInt64;
}

// Data and shape of a value; throws when it has another type or too many axes.
void* read_tensor(const OrtValue* value, ElementType type, Shape* shape, const char* name);

// What a kernel may ask while it is created.
class Info {
 public:
  explicit Info(const OrtKernelInfo* info) : info_(info) {}

  int64_t integer(const char* name) const;
  float number(const char* name) const;
  std::string text(const char* name) const;
  void integers(const char* name, int64_t* out, size_t count) const;  // exactly `count` of them
  size_t input_count() const;  // those left out at the end do not count

  // A constant input, or an empty tensor where the node has none; throws when it is not constant.
  template <class T>
  Tensor<const T> constant(size_t index, const char* name) const {
    Tensor<const T> tensor;
    if (const OrtValue* value = constant_value(index, name)) {
      tensor.data =
          static_cast<const T*>(read_tensor(value, element_type<T>(), &tensor.shape, name));
    }
    return tensor;
  }

 private:
  const OrtValue* constant_value(size_t index, const char* name) const;
  const OrtKernelInfo* info_;
};

// What a kernel may ask while it runs.
class Context {
 public:
  explicit Context(OrtKernelContext* context) : context_(context) {}

  template <class T>
  Tensor<const T> input(size_t index, const char* name) const {
    Tensor<const T> tensor;
    const OrtValue* value = nullptr;
    check(call<api::GetInput>(static_cast<const OrtKernelContext*>(context_), index, &value), name);
    if (!value) throw Error(std::string(name) + " is missing");
    tensor.data = static_cast<const T*>(read_tensor(value, element_type<T>(), &tensor.shape, name));
    return tensor;
  }

  // Throws when an optional input that must be constant is there all the same.
  void refuse_computed(size_t index, const char* name) const;

  // Memory of an output of this shape; throws where the node does not name it.
  template <class T>
  T* output(size_t index, const Shape& shape) const {
    OrtValue* value = nullptr;
    check(call<api::GetOutput>(context_, index, static_cast<const int64_t*>(shape.dims), shape.rank,
                               &value),
          "an output");
    if (!value) throw Error("an output is missing");
    void* data = nullptr;
    check(call<api::GetTensorMutableData>(value, &data), "an output");
    return static_cast<T*>(data);
  }

  // Calls body(i) for i < count on ONNX Runtime's own threads. The body must not throw.
  template <class F>
  void parallel(size_t count, F& body) const {
    if (count == 1) {
      body(size_t{0});
      return;
    }
    static_assert(noexcept(body(size_t{0})), "threads of the runtime catch nothing");
    void (*run)(void*, size_t) = [](void* f, size_t i) { (*static_cast<F*>(f))(i); };
    check(call<api::ParallelFor>(static_cast<const OrtKernelContext*>(context_), run, count,
                                 size_t{0}, static_cast<void*>(&body)),
          "running in parallel");
  }

 private:
  OrtKernelContext* context_;
};

OrtStatus* make_status(const char* operator_name, const char* message) noexcept;

// Runs `f` and turns whatever it throws into a status.
template <class F>
OrtStatus* guarded(const char* operator_name, F f) noexcept {
  try {
    f();
    return nullptr;
  } catch (const std::exception& error) {
    return make_status(operator_name, error.what());
  } catch (...) {
    return make_status(operator_name, "failed for an unknown reason");
  }
}

// One input or output of an operator.
struct Port {
  ElementType type;
  Characteristic characteristic = kRequired;
};
template <size_t N>
using Ports = std::array<Port, N>;

// An operator for RegisterCustomOps. A Kernel has `static constexpr` name, inputs and outputs
// (`Ports`), a constructor from Info, and run(Context&).
template <class Kernel>
struct Operator : OrtCustomOp {
  Operator() : OrtCustomOp{} {
    version = kCustomOpVersion;
    GetName = [](const OrtCustomOp*) { return Kernel::name; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    GetInputTypeCount = [](const OrtCustomOp*) { return Kernel::inputs.size(); };
    GetInputType = [](const OrtCustomOp*, size_t i) -> int { return Kernel::inputs[i].type; };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t i) -> int {
      return Kernel::inputs[i].characteristic;
    };
    GetOutputTypeCount = [](const OrtCustomOp*) { return Kernel::outputs.size(); };
    GetOutputType = [](const OrtCustomOp*, size_t i) -> int { return Kernel::outputs[i].type; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t i) -> int {
      return Kernel::outputs[i].characteristic;
    };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
    GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
    GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return 1; };
    CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info,
                        void** kernel) {
      return guarded(Kernel::name, [&] { *kernel = new Kernel(Info(info)); });
    };
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded(Kernel::name, [&] {
        const Context c(context);
        static_cast<Kernel*>(kernel)->run(c);
      });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  }
};

}  // namespace edgedec
