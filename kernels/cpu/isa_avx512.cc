#if defined(__x86_64__) || defined(_M_X64)
#define EDGEDEC_ISA avx512
#define EDGEDEC_ISA_NAME "avx512"
#include "simd/avx512.h"

#include "routines/table.h"
#endif
