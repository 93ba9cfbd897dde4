#if defined(__aarch64__) || defined(_M_ARM64)
#define EDGEDEC_ISA neon
#define EDGEDEC_ISA_NAME "neon"
#include "simd/neon.h"

#include "routines/table.h"
#endif
