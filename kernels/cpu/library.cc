// The library's only export. ONNX Runtime calls it when a session's options name this file.
#include <cstdlib>
#include <mutex>

#include "dispatch.h"
#include "operators.h"
#include "ort.h"

#if defined(_WIN32)
#define EDGEDEC_EXPORT __declspec(dllexport)
#else
#define EDGEDEC_EXPORT __attribute__((visibility("default")))
#endif

namespace edgedec {

namespace {

constexpr int kOldest = 24, kNewest = 32;  // minor versions of ONNX Runtime 1

// "1.31.1" -> 31; anything that is not version 1 -> -1.
int minor_version(const char* version) {
  if (version[0] != '1' || version[1] != '.') return -1;
  return std::atoi(version + 2);
}

// Status of a runtime that this library does not know: only CreateStatus is used, place 0 in every
// version of the table.
OrtStatus* refuse(const OrtApiBase* base) {
  const OrtApi* oldest = base->GetApi(1);
  if (!oldest) return nullptr;
  const std::string text = std::string("edgedec's operators run on ONNX Runtime 1.") +
                           std::to_string(kOldest) + " to 1." + std::to_string(kNewest) +
                           ", and this is " + base->GetVersionString();
  using Create = api::CreateStatus;
  return reinterpret_cast<Create::Function>(oldest->function[Create::place])(kFail, text.c_str());
}

// One domain for all sessions of the process. Sessions refer to it as long as they live, so it is
// never released.
OrtCustomOpDomain* domain() {
  static OrtCustomOpDomain* made = [] {
    OrtCustomOpDomain* d = nullptr;
    check(call<api::CreateCustomOpDomain>("edgedec", &d), "a domain");
    for (const OrtCustomOp* op : {codebook_matmul(), codebook_gather(), decode_attention(),
                                  memory_attention(), add_rms_norm(), arg_max(), kernel_info()}) {
      check(call<api::CustomOpDomainAdd>(d, op), op->GetName(op));
    }
    return d;
  }();
  return made;
}

}  // namespace

}  // namespace edgedec

extern "C" EDGEDEC_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                       const OrtApiBase* base) {
  using namespace edgedec;
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  const int minor = minor_version(base->GetVersionString());
  if (minor < kOldest || minor > kNewest) return refuse(base);
  if (!g_api) g_api = base->GetApi(kApiVersion);
  if (!g_api) return refuse(base);
  return guarded("RegisterCustomOps", [&] {
    choose_routines();
    check(call<api::AddCustomOpDomain>(options, domain()), "the operators");
  });
}
