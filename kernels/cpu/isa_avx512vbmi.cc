#if defined(__x86_64__) || defined(_M_X64)
#define EDGEDEC_ISA avx512vbmi
#define EDGEDEC_ISA_NAME "avx512vbmi"
#define EDGEDEC_VBMI 1
#include "simd/avx512.h"

#include "routines/table.h"
#endif
