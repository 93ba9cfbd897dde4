/* What one core can do at best: read memory, and look 4-bit codes up. Called by roofline.py. */
#define _POSIX_C_SOURCE 199309L
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef int64_t Line __attribute__((vector_size(64)));

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Seconds to read `bytes` (a multiple of 256) `passes` times, prefetching `ahead` bytes. */
double read_seconds(const char *data, size_t bytes, size_t passes, size_t ahead) {
  Line a = {0}, b = {0}, c = {0}, d = {0};
  const double begin = now();
  for (size_t pass = 0; pass < passes; ++pass) {
    for (const char *p = data; p < data + bytes; p += 256) {
      if (ahead)
        for (int line = 0; line < 256; line += 64) __builtin_prefetch(p + ahead + line);
      const Line *v = (const Line *)p;
      a ^= v[0];
      b ^= v[1];
      c ^= v[2];
      d ^= v[3];
    }
  }
  const double seconds = now() - begin;
  volatile int64_t sink = (a ^ b ^ c ^ d)[0]; /* the loop has a result */
  (void)sink;
  return seconds;
}

/* The shortest sequence of each instruction set from 64 bytes of 4-bit codes, 8 columns of 16 rows,
 * to their products with int8 activations: isolate two codes per byte, look up, multiply and add. */
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#include <immintrin.h>
#define CODES 64
typedef __m512i V;
#define LOAD(p) _mm512_load_si512(p)
#define TABLE _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)levels))
#define FOUR(p) _mm512_set1_epi32(*(p))
#define DOT(acc, w, x) _mm512_dpbusd_epi32(acc, w, x)
#define ZERO _mm512_setzero_si512()
#define ADD(a, b) _mm512_add_epi32(a, b)
#define HIGH(v) _mm512_srli_epi16(v, 4)
#if defined(__AVX512VBMI__)
#define LOOKUP(t, v) _mm512_permutexvar_epi8(v, t) /* the table four times: no mask */
#else
#define LOOKUP(t, v) _mm512_shuffle_epi8(t, _mm512_and_si512(v, _mm512_set1_epi8(15)))
#endif
#elif defined(__AVX2__)
#include <immintrin.h>
#define CODES 32
typedef __m256i V;
#define LOAD(p) _mm256_load_si256((const __m256i *)(p))
#define TABLE _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)levels))
#define FOUR(p) _mm256_set1_epi32(*(p))
#if defined(__AVXVNNI__)
#define DOT(acc, w, x) _mm256_dpbusd_avx_epi32(acc, w, x)
#else
#define DOT(acc, w, x) \
  _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)))
#endif
#define ZERO _mm256_setzero_si256()
#define ADD(a, b) _mm256_add_epi32(a, b)
#define HIGH(v) _mm256_srli_epi16(v, 4)
#define LOOKUP(t, v) _mm256_shuffle_epi8(t, _mm256_and_si256(v, _mm256_set1_epi8(15)))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define CODES 16
typedef int32x4_t V;
#define LOAD(p) vld1q_s32((const int32_t *)(p))
#define TABLE vreinterpretq_s32_s8(vld1q_s8((const int8_t *)levels))
#define FOUR(p) vdupq_n_s32(*(p))
#define DOT(acc, w, x) vdotq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x))
#define ZERO vdupq_n_s32(0)
#define ADD(a, b) vaddq_s32(a, b)
#define HIGH(v) vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(v), 4))
#define LOOKUP(t, v)                                                        \
  vreinterpretq_s32_s8(vqtbl1q_s8(vreinterpretq_s8_s32(t),                  \
                                  vandq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(15))))
#endif

#ifdef CODES
enum { REGISTERS = 4, BYTES = 8192 };
static uint8_t codes[BYTES] __attribute__((aligned(64)));
static uint8_t levels[64];
static int32_t inputs[2 * BYTES / (REGISTERS * CODES)];
#endif

/* Seconds to do that for `bytes` bytes of codes which are in the first cache; -1 where this
 * instruction set has no table lookup. */
double lookup_seconds(size_t bytes) {
#ifdef CODES
  V acc[2 * REGISTERS];
  for (int r = 0; r < 2 * REGISTERS; ++r) acc[r] = ZERO;
  const V table = TABLE;
  const double begin = now();
  for (size_t done = 0; done < bytes; done += BYTES) {
    const int32_t *x = inputs;
    for (const uint8_t *p = codes; p < codes + BYTES; p += REGISTERS * CODES, x += 2) {
      const V low = FOUR(x), high = FOUR(x + 1);
      for (int r = 0; r < REGISTERS; ++r) {
        const V v = LOAD(p + r * CODES);
        acc[2 * r] = DOT(acc[2 * r], LOOKUP(table, v), low);
        acc[2 * r + 1] = DOT(acc[2 * r + 1], LOOKUP(table, HIGH(v)), high);
      }
    }
    __asm__ volatile("" ::: "memory"); /* every pass reads again */
  }
  const double seconds = now() - begin;
  for (int r = 1; r < 2 * REGISTERS; ++r) acc[0] = ADD(acc[0], acc[r]);
  volatile V sink = acc[0];
  (void)sink;
  return seconds;
#else
  (void)bytes;
  return -1;
#endif
}
