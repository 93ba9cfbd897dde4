#include "ort.h"

namespace edgedec {

const OrtApi* g_api = nullptr;

void check(OrtStatus* status, const char* what) {
  if (!status) return;
  call<api::ReleaseStatus>(status);
  throw Error(std::string("ONNX Runtime refuses ") + what);
}

void* read_tensor(const OrtValue* value, ElementType type, Shape* shape, const char* name) {
  int found = 0;
  const int64_t* dims = nullptr;
  size_t rank = 0;
  check(call<api::TypeAndShape>(value, &found, &dims, &rank), name);
  if (found != type) throw Error(std::string(name) + " has the wrong type");
  if (rank > kMaxRank) throw Error(std::string(name) + " has too many axes");
  shape->rank = rank;
  for (size_t i = 0; i < rank; ++i) shape->dims[i] = dims[i];
  void* data = nullptr;
  check(call<api::GetTensorMutableData>(const_cast<OrtValue*>(value), &data), name);
  return data;
}

int64_t Info::integer(const char* name) const {
  int64_t value = 0;
  check(call<api::AttributeInt>(info_, name, &value), name);
  return value;
}

float Info::number(const char* name) const {
  float value = 0;
  check(call<api::AttributeFloat>(info_, name, &value), name);
  return value;
}

std::string Info::text(const char* name) const {
  size_t size = 0;
  // Asked without memory, it answers the size; some versions do so with an error status.
  if (OrtStatus* status = call<api::AttributeString>(info_, name, static_cast<char*>(nullptr),
                                                     &size)) {
    call<api::ReleaseStatus>(status);
  }
  if (size == 0 || size > 64) throw Error(std::string("the attribute ") + name + " is unusable");
  std::string value(size, '\0');
  check(call<api::AttributeString>(info_, name, value.data(), &size), name);
  value.resize(size - 1);  // its terminating zero
  return value;
}

void Info::integers(const char* name, int64_t* out, size_t count) const {
  size_t size = 0;
  if (OrtStatus* status = call<api::AttributeInts>(info_, name, static_cast<int64_t*>(nullptr),
                                                   &size)) {
    call<api::ReleaseStatus>(status);
  }
  if (size != count) throw Error(std::string("the attribute ") + name + " has the wrong length");
  check(call<api::AttributeInts>(info_, name, out, &size), name);
}

size_t Info::input_count() const {
  size_t count = 0;
  check(call<api::InfoInputCount>(info_, &count), "the number of inputs");
  return count;
}

const OrtValue* Info::constant_value(size_t index, const char* name) const {
  if (index >= input_count()) return nullptr;
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(call<api::ConstantInput>(info_, index, &is_constant, &value), name);
  return is_constant ? value : nullptr;
}

void Context::refuse_computed(size_t index, const char* name) const {
  const OrtValue* value = nullptr;
  check(call<api::GetInput>(static_cast<const OrtKernelContext*>(context_), index, &value), name);
  if (value) throw Error(std::string(name) + " must be a constant initializer");
}

OrtStatus* make_status(const char* operator_name, const char* message) noexcept {
  try {
    const std::string text = std::string("edgedec.") + operator_name + ": " + message;
    return call<api::CreateStatus>(static_cast<int>(kInvalidArgument), text.c_str());
  } catch (...) {
    return call<api::CreateStatus>(static_cast<int>(kFail), "edgedec: out of memory");
  }
}

}  // namespace edgedec
