#include "dispatch.h"

#include <cstdlib>

#include "ort.h"

#if defined(__x86_64__) || defined(_M_X64)
#define EDGEDEC_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace edgedec {

namespace scalar { extern const Routines routines; }
#if EDGEDEC_X86
namespace avx2 { extern const Routines routines; }
namespace avxvnni { extern const Routines routines; }
namespace avx512 { extern const Routines routines; }
namespace avx512vbmi { extern const Routines routines; }
#elif defined(__aarch64__) || defined(_M_ARM64)
namespace neon { extern const Routines routines; }
#endif

namespace {

#if EDGEDEC_X86
struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
#if defined(_MSC_VER)
  int out[4];
  __cpuidex(out, 0, 0);
  if (static_cast<unsigned>(out[0]) < leaf) return r;
  __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
  r.a = out[0], r.b = out[1], r.c = out[2], r.d = out[3];
#else
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
#endif
  return r;
}

// The register files that the operating system saves.
unsigned long long saved_state() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

bool bit(unsigned word, int n) { return (word >> n) & 1; }

// Best first. The bits are those of Intel's manual, CPUID leaves 1 and 7.
size_t find(const Routines** out) {
  size_t n = 0;
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1);
  const unsigned long long state = bit(one.c, 27) ? saved_state() : 0;
  const bool ymm = (state & 0x06) == 0x06, zmm = (state & 0xe6) == 0xe6;
  const bool avx2 = ymm && bit(seven.b, 5) && bit(one.c, 12);  // with FMA
  const bool avx512 = avx2 && zmm && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 30) &&
                      bit(seven.b, 31) && bit(seven.c, 11);  // F, DQ, BW, VL, VNNI
  if (avx512 && bit(seven.c, 1) && !avx512vbmi::routines.emulated) out[n++] = &avx512vbmi::routines;
  if (avx512) out[n++] = &avx512::routines;
  if (avx2 && bit(more.a, 4) && !avxvnni::routines.emulated) out[n++] = &avxvnni::routines;
  if (avx2) out[n++] = &avx2::routines;
  out[n++] = &scalar::routines;
  return n;
}
#elif defined(__aarch64__) || defined(_M_ARM64)
bool has_dot_product() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & (1u << 20);  // HWCAP_ASIMDDP
#elif defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value;
#else
  return false;
#endif
}

size_t find(const Routines** out) {
  size_t n = 0;
  if (has_dot_product()) out[n++] = &neon::routines;
  out[n++] = &scalar::routines;
  return n;
}
#else
size_t find(const Routines** out) {
  out[0] = &scalar::routines;
  return 1;
}
#endif

const Routines* g_routines = nullptr;

}  // namespace

const Routines* const* available_routines() {
  struct List {
    const Routines* entry[8] = {};
    List() { find(entry); }
  };
  static const List list;
  return list.entry;
}

namespace {

// Empty, or why EDGEDEC_ISA cannot be followed.
std::string choose() {
  const char* wanted = std::getenv("EDGEDEC_ISA");
  if (!wanted || !*wanted) {
    g_routines = available_routines()[0];
    return {};
  }
  std::string names;
  for (const Routines* const* r = available_routines(); *r; ++r) {
    if (std::string(wanted) == (*r)->name) {
      g_routines = *r;
      return {};
    }
    names += (names.empty() ? "" : ", ") + std::string((*r)->name);
  }
  return "EDGEDEC_ISA=" + std::string(wanted) + " cannot run here; this machine has: " + names;
}

}  // namespace

void choose_routines() {
  static const std::string problem = choose();  // once: sessions on other threads read the choice
  if (!problem.empty()) throw Error(problem);
}

const Routines& routines() { return *g_routines; }

std::string describe_routines() {
  std::string text = std::string(routines().name) + ";";
  for (const Routines* const* r = available_routines(); *r; ++r) {
    text += (r == available_routines() ? "" : ",") + std::string((*r)->name);
  }
  return text;
}

}  // namespace edgedec
