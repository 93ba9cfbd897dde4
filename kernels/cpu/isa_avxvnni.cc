#if defined(__x86_64__) || defined(_M_X64)
#define EDGEDEC_ISA avxvnni
#define EDGEDEC_ISA_NAME "avxvnni"
#define EDGEDEC_AVXVNNI 1
#include "simd/avx2.h"

#include "routines/table.h"
#endif
