// Products of activations with a packed matrix.
//
// A tile is a few rows of activations times a few blocks of 16 matrix rows; a vector's lanes are
// the matrix rows, so nothing is summed across lanes. Tiles that stick out over the last row of the
// activations compute that row again and do not store it.
#pragma once

#include "routines.h"

namespace edgedec {
namespace EDGEDEC_ISA {

template <int N>
struct Index {
  static constexpr int value = N;
};

template <int N, int I = 0, class F>
EDGEDEC_INLINE void repeat(F f) {  // f(Index<0>), ..., f(Index<N - 1>): the indices are constants
  if constexpr (I < N) {
    f(Index<I>{});
    repeat<N, I + 1>(f);
  }
}

constexpr int64_t kAhead = 2048;  // bytes; memory answers a prefetch that early

// How a block's codes lie in memory (kernels/packing.py): a unit is what one step reads.
template <int Bits>
struct Layout {
  static constexpr int kCodes = 8 / Bits;   // in a byte
  static constexpr int kChunks = 1;         // of 64 bytes
  static constexpr int kQuads = kCodes;     // groups of 4 columns in a unit
};
template <>
struct Layout<3> {
  static constexpr int kCodes = 4;
  static constexpr int kChunks = 3;
  static constexpr int kQuads = 8;
};

template <int Bits>
struct Unit {
  Bytes chunk[Layout<Bits>::kChunks];
};

template <int Bits>
EDGEDEC_INLINE Unit<Bits> unit(const uint8_t* p) {
  Unit<Bits> u;
  repeat<Layout<Bits>::kChunks>([&](auto c) EDGEDEC_INLINE_LAMBDA { u.chunk[c.value] = bytes(p + 64 * c.value); });
  return u;
}

// Levels of 4 columns of a block; codes of 8 bits are levels already (see dot8).
template <int Bits, int Quad>
EDGEDEC_INLINE Bytes levels(const Unit<Bits>& u, Table t) {
  if constexpr (Bits == 8) {
    return u.chunk[0];
  } else if constexpr (Bits == 3) {
    const Bytes low = mask<3>(shift<2 * (Quad % 4)>(u.chunk[Quad / 4]));
    const Bytes plane = Quad < 2 ? shift_left<Quad < 2 ? 2 - Quad : 0>(u.chunk[2])
                                 : shift<Quad < 2 ? 0 : Quad - 2>(u.chunk[2]);
    return lookup(t, either(low, mask<4>(plane)));
  } else {
    return lookup(t, code(shift<Bits * Quad>(u.chunk[0])));
  }
}

template <int Bits>
EDGEDEC_INLINE I32 dot(I32 acc, Bytes w, Four x) {
  if constexpr (Bits == 8) return dot8(acc, w, x);
  else return dot7(acc, w, x);
}
template <int Bits>
constexpr int32_t offset() {
  return Bits == 8 ? kOffset8 : kOffset7;
}

EDGEDEC_INLINE void scatter(const Product& p, int64_t m, int64_t row, int n, F32 v) {
  float lanes[16];
  store(lanes, v);
  for (int i = 0; i < n; ++i) {
    const int64_t column = p.w.order[row + i];
    int s = 0;
    while (column >= p.out[s].first + p.out[s].columns) ++s;
    p.out[s].data[m * p.out[s].columns + column - p.out[s].first] = lanes[i];
  }
}

// Scales, adds the bias and stores 16 matrix rows of one row of activations.
EDGEDEC_INLINE void finish(const Product& p, int64_t m, int64_t row, F32 acc) {
  const int64_t left = p.w.rows - row;
  if (left <= 0) return;
  F32 y = mul(acc, load(p.w.scale + row));
  if (p.w.bias) y = add(y, load(p.w.bias + row));
  const int n = left < 16 ? static_cast<int>(left) : 16;
  if (p.w.order) {
    scatter(p, m, row, n, y);
    return;
  }
  const Segment* s = p.out;
  while (row >= s->first + s->columns) ++s;
  float* to = s->data + m * s->columns + (row - s->first);
  if (n == 16) store(to, y);
  else store_part(to, y, n);
}

// The rows of a tile; those beyond the last are the last one again.
template <int Rows, class T>
EDGEDEC_INLINE void row_pointers(const T* (&row)[Rows], const T* x, int64_t stride, int64_t m0,
                                 int64_t rows) {
  for (int m = 0; m < Rows; ++m) row[m] = x + stride * (m0 + m < rows ? m0 + m : rows - 1);
}

template <int Bits, int Rows, int Blocks>
static void direct_tile(const Product& p, int64_t m0, int64_t panel, int block) {
  using L = Layout<Bits>;
  constexpr int kBytes = 64 * L::kChunks;
  constexpr int kColumns = 4 * L::kQuads;
  const uint8_t* w = p.w.codes + panel * p.w.panel_bytes + block * kBytes;
  const uint8_t* tables = offset<Bits>() && Bits != 8 ? p.w.shifted : p.w.levels;
  Table t[Blocks];
  for (int n = 0; n < Blocks; ++n) {
    t[n] = table(tables + 16 * p.w.group[panel * kBlocks + block + n]);
  }
  const int8_t* x[Rows];
  row_pointers(x, p.q, p.w.padded, m0, p.rows);
  F32 y[Rows][Blocks];
  for (int m = 0; m < Rows; ++m)
    for (int n = 0; n < Blocks; ++n) y[m][n] = splat(0.0f);
  const int64_t units = p.w.panel_bytes / (kBytes * kBlocks);
  for (int64_t s = 0, u = 0; s < p.scales; ++s) {
    I32 acc[Rows][Blocks];
    for (int m = 0; m < Rows; ++m) {
      const int64_t row = m0 + m < p.rows ? m0 + m : p.rows - 1;
      const int32_t start = offset<Bits>() ? -offset<Bits>() * p.q_sum[row * p.scales + s] : 0;
      for (int n = 0; n < Blocks; ++n) acc[m][n] = splat(start);
    }
    const int64_t until = (s + 1) * p.scale_block / kColumns;
    const int64_t end = s + 1 == p.scales ? units : until;
    for (; u < end; ++u, w += kBytes * kBlocks) {
      Unit<Bits> raw[Blocks];
      for (int n = 0; n < Blocks; ++n) {
        raw[n] = unit<Bits>(w + n * kBytes);
        repeat<L::kChunks>([&](auto c) EDGEDEC_INLINE_LAMBDA { prefetch(w + n * kBytes + 64 * c.value + kAhead); });
      }
      repeat<L::kQuads>([&](auto quad) EDGEDEC_INLINE_LAMBDA {
        Bytes level[Blocks];
        for (int n = 0; n < Blocks; ++n) level[n] = levels<Bits, quad.value>(raw[n], t[n]);
        for (int m = 0; m < Rows; ++m) {
          const Four four_columns = four(x[m] + u * kColumns + 4 * quad.value);
          for (int n = 0; n < Blocks; ++n)
            acc[m][n] = dot<Bits>(acc[m][n], level[n], four_columns);
        }
      });
    }
    for (int m = 0; m < Rows; ++m) {
      const int64_t row = m0 + m < p.rows ? m0 + m : p.rows - 1;
      const F32 scale = splat(p.q_scale[row * p.scales + s]);
      for (int n = 0; n < Blocks; ++n) y[m][n] = add(y[m][n], mul(to_float(acc[m][n]), scale));
    }
  }
  for (int m = 0; m < Rows && m0 + m < p.rows; ++m)
    for (int n = 0; n < Blocks; ++n)
      finish(p, m0 + m, panel * kPanelSize + (block + n) * kBlockRows, y[m][n]);
}

template <int Bits, int Rows, int Blocks>
static void direct_rows(const Product& p, int64_t m0, int64_t first, int64_t last) {
  for (int64_t panel = first; panel < last; ++panel)
    for (int block = 0; block < kBlocks; block += Blocks)
      direct_tile<Bits, Rows, Blocks>(p, m0, panel, block);
}

template <int Bits>
static void direct_bits(const Product& p, int64_t first, int64_t last) {
  constexpr int kNarrow = kDirectBlocks < 2 ? kDirectBlocks : 2;
  int64_t m = 0;
  for (; p.rows - m > 4; m += 8) direct_rows<Bits, 8, kNarrow>(p, m, first, last);
  if (p.rows - m > 2) direct_rows<Bits, 4, kNarrow>(p, m, first, last);
  else if (p.rows - m == 2) direct_rows<Bits, 2, kDirectBlocks>(p, m, first, last);
  else if (p.rows - m == 1) direct_rows<Bits, 1, kDirectBlocks>(p, m, first, last);
}

static void direct(const Product& p, int64_t first, int64_t last) {
  switch (p.w.bits) {
    case 2: return direct_bits<2>(p, first, last);
    case 3: return direct_bits<3>(p, first, last);
    case 4: return direct_bits<4>(p, first, last);
    default: return direct_bits<8>(p, first, last);
  }
}

// Unpacks a panel to what an 8-bit panel is: 4 columns of 64 rows in 256 bytes.
template <int Bits>
static void unpack(const Matrix& w, int64_t panel, uint8_t* to) {
  using L = Layout<Bits>;
  constexpr int kBytes = 64 * L::kChunks;
  const uint8_t* from = w.codes + panel * w.panel_bytes;
  const uint8_t* tables = kOffset7 ? w.shifted : w.levels;
  Table t[kBlocks];
  for (int n = 0; n < kBlocks; ++n) t[n] = table(tables + 16 * w.group[panel * kBlocks + n]);
  const uint8_t* end = from + w.panel_bytes;
  for (; from < end; to += 256 * L::kQuads) {
    for (int n = 0; n < kBlocks; ++n, from += kBytes) {
      const Unit<Bits> raw = unit<Bits>(from);
      repeat<L::kQuads>([&](auto quad) EDGEDEC_INLINE_LAMBDA {
        store(to + 256 * quad.value + 64 * n, levels<Bits, quad.value>(raw, t[n]));
      });
    }
  }
}

template <int Bits, int Rows, int Blocks>
static void panel_tile(const Product& p, int64_t m0, int64_t panel, int block, const uint8_t* w) {
  w += 64 * block;
  const int8_t* x[Rows];
  row_pointers(x, p.q, p.w.padded, m0, p.rows);
  F32 y[Rows][Blocks];
  for (int m = 0; m < Rows; ++m)
    for (int n = 0; n < Blocks; ++n) y[m][n] = splat(0.0f);
  for (int64_t s = 0, k = 0; s < p.scales; ++s) {
    I32 acc[Rows][Blocks];
    for (int m = 0; m < Rows; ++m) {
      const int64_t row = m0 + m < p.rows ? m0 + m : p.rows - 1;
      const int32_t start = offset<Bits>() ? -offset<Bits>() * p.q_sum[row * p.scales + s] : 0;
      for (int n = 0; n < Blocks; ++n) acc[m][n] = splat(start);
    }
    const int64_t until = (s + 1) * p.scale_block;
    const int64_t end = s + 1 == p.scales ? p.w.columns : until;
    for (; k < end; k += 4, w += 256) {
      Bytes level[Blocks];
      for (int n = 0; n < Blocks; ++n) level[n] = bytes(w + 64 * n);
      for (int m = 0; m < Rows; ++m) {
        const Four four_columns = four(x[m] + k);
        for (int n = 0; n < Blocks; ++n) acc[m][n] = dot<Bits>(acc[m][n], level[n], four_columns);
      }
    }
    for (int m = 0; m < Rows; ++m) {
      const int64_t row = m0 + m < p.rows ? m0 + m : p.rows - 1;
      const F32 scale = splat(p.q_scale[row * p.scales + s]);
      for (int n = 0; n < Blocks; ++n) y[m][n] = add(y[m][n], mul(to_float(acc[m][n]), scale));
    }
  }
  for (int m = 0; m < Rows && m0 + m < p.rows; ++m)
    for (int n = 0; n < Blocks; ++n)
      finish(p, m0 + m, panel * kPanelSize + (block + n) * kBlockRows, y[m][n]);
}

template <int Bits>
static void panel_bits(const Product& p, int64_t panel, const uint8_t* w) {
  for (int64_t m = 0; m < p.rows; m += kPanelRows)
    for (int block = 0; block < kBlocks; block += kPanelBlocks)
      panel_tile<Bits, kPanelRows, kPanelBlocks>(p, m, panel, block, w);
}

static void panel(const Product& p, int64_t panel, uint8_t* scratch) {
  switch (p.w.bits) {
    case 2: unpack<2>(p.w, panel, scratch); break;
    case 3: unpack<3>(p.w, panel, scratch); break;
    case 4: unpack<4>(p.w, panel, scratch); break;
    default: return panel_bits<8>(p, panel, p.w.codes + panel * p.w.panel_bytes);
  }
  panel_bits<4>(p, panel, scratch);
}

template <int Bits, int Rows, int Blocks>
static void float_tile(const Product& p, int64_t m0, int64_t panel, int block) {
  using L = Layout<Bits>;
  constexpr int kBytes = 64 * L::kChunks;
  constexpr int kColumns = 4 * L::kQuads;
  const uint8_t* w = p.w.codes + panel * p.w.panel_bytes + block * kBytes;
  Table t[Blocks];
  for (int n = 0; n < Blocks; ++n) {
    t[n] = table(p.w.levels + 16 * p.w.group[panel * kBlocks + block + n]);
  }
  const float* x[Rows];
  row_pointers(x, p.x, p.w.padded, m0, p.rows);
  F32 y[Rows][Blocks];
  for (int m = 0; m < Rows; ++m)
    for (int n = 0; n < Blocks; ++n) y[m][n] = splat(0.0f);
  const int64_t units = p.w.panel_bytes / (kBytes * kBlocks);
  for (int64_t u = 0; u < units; ++u, w += kBytes * kBlocks) {
    Unit<Bits> raw[Blocks];
    for (int n = 0; n < Blocks; ++n) raw[n] = unit<Bits>(w + n * kBytes);
    repeat<L::kQuads>([&](auto quad) EDGEDEC_INLINE_LAMBDA {
      Bytes level[Blocks];
      for (int n = 0; n < Blocks; ++n) {
        level[n] = levels<Bits, quad.value>(raw[n], t[n]);
        if constexpr (Bits == 8) level[n] = flip(level[n]);
      }
      repeat<4>([&](auto b) EDGEDEC_INLINE_LAMBDA {
        F32 f[Blocks];
        for (int n = 0; n < Blocks; ++n) f[n] = byte_as_float<b.value>(level[n]);
        for (int m = 0; m < Rows; ++m) {
          const F32 activation = splat(x[m][u * kColumns + 4 * quad.value + b.value]);
          for (int n = 0; n < Blocks; ++n) y[m][n] = fma(f[n], activation, y[m][n]);
        }
      });
    });
  }
  for (int m = 0; m < Rows && m0 + m < p.rows; ++m)
    for (int n = 0; n < Blocks; ++n)
      finish(p, m0 + m, panel * kPanelSize + (block + n) * kBlockRows, y[m][n]);
}

template <int Bits>
static void float_bits(const Product& p, int64_t first, int64_t last) {
  constexpr int kNarrow = kDirectBlocks < 2 ? kDirectBlocks : 2;
  for (int64_t panel = first; panel < last; ++panel) {
    int64_t m = 0;
    for (; p.rows - m > 1; m += 4)
      for (int block = 0; block < kBlocks; block += kNarrow)
        float_tile<Bits, 4, kNarrow>(p, m, panel, block);
    if (p.rows - m == 1)
      for (int block = 0; block < kBlocks; block += kDirectBlocks)
        float_tile<Bits, 1, kDirectBlocks>(p, m, panel, block);
  }
}

static void floats(const Product& p, int64_t first, int64_t last) {
  switch (p.w.bits) {
    case 2: return float_bits<2>(p, first, last);
    case 3: return float_bits<3>(p, first, last);
    case 4: return float_bits<4>(p, first, last);
    default: return float_bits<8>(p, first, last);
  }
}

}  // namespace EDGEDEC_ISA
}  // namespace edgedec
