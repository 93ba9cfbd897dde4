// Products of activations with a packed matrix.
//
// A tile is a few rows of activations times a few blocks of 16 matrix rows; a vector's lanes are
// the matrix rows, so nothing is summed across lanes. Tiles that stick out over the last row of the
// activations compute that row again and do not store it.
#pragma once

#include <utility>

#include "routines.h"

namespace edgedec {
namespace EDGEDEC_ISA {

constexpr int64_t kAhead = 2048;  // bytes; memory answers a prefetch that early

// How a block's codes lie in memory (kernels/packing.py): a unit is what one step reads.
template <int Bits>
struct Layout {
  static constexpr int kChunks = Bits == 3 ? 3 : 1;        // of 64 bytes
  static constexpr int kQuads = Bits == 3 ? 8 : 8 / Bits;  // groups of 4 columns
  static constexpr int kBytes = 64 * kChunks;
  static constexpr int kColumns = 4 * kQuads;
  using Quads = std::make_integer_sequence<int, kQuads>;
};

template <int Bits>
struct Unit {
  Bytes chunk[Layout<Bits>::kChunks];
};

template <int Bits>
EDGEDEC_INLINE Unit<Bits> unit(const uint8_t* p) {
  Unit<Bits> u;
  EDGEDEC_UNROLL for (int c = 0; c < Layout<Bits>::kChunks; ++c) u.chunk[c] = bytes(p + 64 * c);
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

// Blocks are neighbours in one panel or, four by four, all of several neighbouring panels.
template <int Rows, int Blocks>
struct Tile {
  static constexpr int kStreams = Blocks > kBlocks ? Blocks / kBlocks : 1;
  static constexpr int kInPanel = Blocks / kStreams;

  const Product& p;
  int64_t row;    // of the activations
  int64_t panel;
  int block;      // in the panel

  // The row of activations that row m computes with.
  int64_t row_of(int m) const {
    return row + m < p.rows ? row + m : p.rows - 1;
  }
};

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

// Where 16 rows of the matrix go for the tile's first row of activations; rows follow `stride` apart.
struct Place {
  float* data;
  int64_t stride;
};
EDGEDEC_INLINE Place place_of(const Product& p, int64_t activation, int64_t row) {
  const Segment* s = p.out;
  while (row >= s->first + s->columns) ++s;
  return {s->data + activation * s->columns + (row - s->first), s->columns};
}

// Asks for the memory that a tile will write, a whole loop ahead: its rows are far apart.
template <int Rows, int Blocks>
EDGEDEC_INLINE void prefetch_results(const Tile<Rows, Blocks>& tile) {
  const int64_t first = tile.panel * kPanelSize + tile.block * kBlockRows;
  for (int n = 0; n < Blocks && first + n * kBlockRows < tile.p.w.rows; ++n) {
    const Place to = place_of(tile.p, tile.row, first + n * kBlockRows);
    for (int m = 0; m < Rows && tile.row + m < tile.p.rows; ++m) prefetch(to.data + m * to.stride);
  }
}

// Scales, adds the bias and stores.
template <int Rows, int Blocks>
EDGEDEC_INLINE void finish_tile(const Tile<Rows, Blocks>& tile, const F32 (&y)[Rows][Blocks]) {
  const Product& p = tile.p;
  const int64_t first = tile.panel * kPanelSize + tile.block * kBlockRows;
  EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) {
    const int64_t row = first + n * kBlockRows;  // of the matrix
    const int64_t left = p.w.rows - row;
    if (left <= 0) break;
    const F32 scale = load(p.w.scale + row);
    const F32 bias = p.w.bias ? load(p.w.bias + row) : splat(-0.0f);  // which changes no number
    const Place to = place_of(p, tile.row, row);
    EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m) {
      if (tile.row + m >= p.rows) break;
      const F32 result = add(mul(y[m][n], scale), bias);
      if (p.w.order) scatter(p, tile.row + m, row, left < 16 ? static_cast<int>(left) : 16, result);
      else if (left >= 16) store(to.data + m * to.stride, result);
      else store_part(to.data + m * to.stride, result, static_cast<int>(left));
    }
  }
}

template <int N, class T>
EDGEDEC_INLINE void copy(const T (&from)[N], T (&to)[N]) {
  EDGEDEC_UNROLL for (int i = 0; i < N; ++i) to[i] = from[i];
}

template <int Rows, int Blocks, class T>
EDGEDEC_INLINE void copy(const T (&from)[Rows][Blocks], T (&to)[Rows][Blocks]) {
  EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m)
    EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) to[m][n] = from[m][n];
}

template <int Rows, int Blocks>
EDGEDEC_INLINE void zero(F32 (&y)[Rows][Blocks]) {
  EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m)
    EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) y[m][n] = splat(0.0f);
}

// What the sums of scale block s start from: it takes away the offset of the levels.
template <int Bits, int Rows, int Blocks>
EDGEDEC_INLINE void start_sums(const Tile<Rows, Blocks>& tile, int64_t s,
                               I32 (&acc)[Rows][Blocks]) {
  EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m) {
    const int64_t at = tile.row_of(m) * tile.p.scales + s;
    const I32 start = splat(offset<Bits>() ? -offset<Bits>() * tile.p.q_sum[at] : 0);
    EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) acc[m][n] = start;
  }
}

template <int Rows, int Blocks>
EDGEDEC_INLINE void add_sums(const Tile<Rows, Blocks>& tile, int64_t s,
                             const I32 (&acc)[Rows][Blocks], F32 (&y)[Rows][Blocks]) {
  EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m) {
    const F32 scale = splat(tile.p.q_scale[tile.row_of(m) * tile.p.scales + s]);
    EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n)
      y[m][n] = add(y[m][n], mul(to_float(acc[m][n]), scale));
  }
}

// The column where scale block s ends; one condition for the loop over it keeps sums in registers.
EDGEDEC_INLINE int64_t end_of_block(const Product& p, int64_t s) {
  const int64_t end = (s + 1) * p.scale_block;
  return end < p.w.columns ? end : p.w.columns;
}

template <int Rows, int Blocks, class T>
EDGEDEC_INLINE void point_at_rows(const Tile<Rows, Blocks>& tile, const T* x,
                                  const T* (&row)[Rows]) {
  EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m) row[m] = x + tile.p.w.padded * tile.row_of(m);
}

template <int Bits, int Rows, int Blocks>
EDGEDEC_INLINE void load_tables(const Tile<Rows, Blocks>& tile, const uint8_t* levels,
                                Table (&t)[Blocks]) {
  const int32_t* group = tile.p.w.group + tile.panel * kBlocks + tile.block;
  EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) t[n] = table(levels + 16 * group[n]);
}

template <int Bits, int Blocks>
EDGEDEC_INLINE void load_units(const uint8_t* w, Unit<Bits> (&raw)[Blocks]) {
  EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) {
    raw[n] = unit<Bits>(w + n * Layout<Bits>::kBytes);
    EDGEDEC_UNROLL for (int c = 0; c < Layout<Bits>::kChunks; ++c)
      prefetch(w + n * Layout<Bits>::kBytes + 64 * c + kAhead);
  }
}

// Some blocks of a tile, from `first` on.
template <int Bits, int Rows, int Some, int Blocks>
EDGEDEC_INLINE void add_dots(const Bytes (&level)[Some], const int8_t* const (&x)[Rows], int64_t k,
                             I32 (&acc)[Rows][Blocks], int first) {
  EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m) {
    const Four columns = four(x[m] + k);
    EDGEDEC_UNROLL for (int n = 0; n < Some; ++n)
      acc[m][first + n] = dot<Bits>(acc[m][first + n], level[n], columns);
  }
}

template <int Bits, int Quad, int Rows, int Some, int Blocks>
EDGEDEC_INLINE void add_quad(const Unit<Bits> (&raw)[Some], const Table* t,
                             const int8_t* const (&x)[Rows], int64_t k, I32 (&acc)[Rows][Blocks],
                             int first) {
  Bytes level[Some];
  EDGEDEC_UNROLL for (int n = 0; n < Some; ++n) level[n] = levels<Bits, Quad>(raw[n], t[n]);
  add_dots<Bits>(level, x, k + 4 * Quad, acc, first);
}

template <int Bits, int Rows, int Some, int Blocks, int... Quad>
EDGEDEC_INLINE void add_unit(const Unit<Bits> (&raw)[Some], const Table* t,
                             const int8_t* const (&x)[Rows], int64_t k, I32 (&acc)[Rows][Blocks],
                             int first, std::integer_sequence<int, Quad...>) {
  (add_quad<Bits, Quad>(raw, t, x, k, acc, first), ...);
}

// The two innermost loops are functions of their own, with copies of the sums: inside of a larger
// function compilers do not keep them all in registers.
template <int Bits, int Rows, int Blocks>
EDGEDEC_NOINLINE void add_units(const uint8_t* w, int64_t panel_bytes,
                                const int8_t* const (&from)[Rows], int64_t k, int64_t until,
                                const Table (&tables)[Blocks], I32 (&acc)[Rows][Blocks]) {
  using L = Layout<Bits>;
  using T = Tile<Rows, Blocks>;
  const int8_t* x[Rows];
  Table t[Blocks];
  I32 sum[Rows][Blocks];
  copy(from, x);
  copy(tables, t);
  copy(acc, sum);
  for (; k < until; k += L::kColumns, w += kBlocks * L::kBytes) {
    EDGEDEC_UNROLL for (int s = 0; s < T::kStreams; ++s) {
      Unit<Bits> raw[T::kInPanel];
      load_units<Bits>(w + s * panel_bytes, raw);
      add_unit<Bits>(raw, t + s * T::kInPanel, x, k, sum, s * T::kInPanel,
                     typename L::Quads{});
    }
  }
  copy(sum, acc);
}

template <int Bits, int Rows, int Blocks>
EDGEDEC_NOINLINE void add_bytes(const uint8_t* w, const int8_t* const (&from)[Rows], int64_t k,
                                int64_t until, I32 (&acc)[Rows][Blocks]) {
  const int8_t* x[Rows];
  I32 sum[Rows][Blocks];
  copy(from, x);
  copy(acc, sum);
  for (; k < until; k += 4, w += 256) {
    Bytes level[Blocks];
    EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) level[n] = bytes(w + 64 * n);
    add_dots<Bits>(level, x, k, sum, 0);
  }
  copy(sum, acc);
}

template <int Bits, int Rows, int Blocks>
static void direct_tile(const Tile<Rows, Blocks>& tile) {
  using L = Layout<Bits>;
  const Product& p = tile.p;
  const uint8_t* w = p.w.codes + tile.panel * p.w.panel_bytes + tile.block * L::kBytes;
  Table t[Blocks];
  load_tables<Bits>(tile, kOffset7 ? p.w.shifted : p.w.levels, t);
  const int8_t* x[Rows];
  point_at_rows(tile, p.q, x);
  F32 y[Rows][Blocks];
  zero(y);
  for (int64_t s = 0, k = 0; s < p.scales; ++s) {
    I32 acc[Rows][Blocks];
    start_sums<Bits>(tile, s, acc);
    const int64_t until = end_of_block(p, s);
    add_units<Bits>(w + k / L::kColumns * kBlocks * L::kBytes, p.w.panel_bytes, x, k, until, t,
                    acc);
    k = until;
    add_sums(tile, s, acc, y);
  }
  finish_tile(tile, y);
}

template <int Bits, int Rows, int Blocks>
static void direct_rows(const Product& p, int64_t row, int64_t first, int64_t last) {
  for (int64_t panel = first; panel < last; ++panel)
    for (int block = 0; block < kBlocks; block += Blocks)
      direct_tile<Bits>(Tile<Rows, Blocks>{p, row, panel, block});
}

// One row of activations leaves time to read: several panels at once keep more of memory busy.
template <int Bits>
static void direct_row(const Product& p, int64_t row, int64_t first, int64_t last) {
  if constexpr (kDirectPanels >= 4) {
    for (; first + 4 <= last; first += 4) direct_tile<Bits>(Tile<1, 4 * kBlocks>{p, row, first, 0});
  }
  if constexpr (kDirectPanels >= 2) {
    for (; first + 2 <= last; first += 2) direct_tile<Bits>(Tile<1, 2 * kBlocks>{p, row, first, 0});
  }
  direct_rows<Bits, 1, kDirectBlocks>(p, row, first, last);
}

template <int Bits>
static void direct_bits(const Product& p, int64_t first, int64_t last) {
  constexpr int kNarrow = kDirectBlocks < 2 ? kDirectBlocks : 2;
  int64_t m = 0;
  for (; p.rows - m > 4; m += 8) direct_rows<Bits, 8, kNarrow>(p, m, first, last);
  if (p.rows - m > 2) direct_rows<Bits, 4, kNarrow>(p, m, first, last);
  else if (p.rows - m == 2) direct_rows<Bits, 2, kDirectBlocks>(p, m, first, last);
  else if (p.rows - m == 1) direct_row<Bits>(p, m, first, last);
}

static void direct(const Product& p, int64_t first, int64_t last) {
  switch (p.w.bits) {
    case 2: return direct_bits<2>(p, first, last);
    case 3: return direct_bits<3>(p, first, last);
    case 4: return direct_bits<4>(p, first, last);
    default: return direct_bits<8>(p, first, last);
  }
}

template <int Bits, int... Quad>
EDGEDEC_INLINE void store_levels(const Unit<Bits>& raw, Table t, uint8_t* to,
                                 std::integer_sequence<int, Quad...>) {
  (store(to + 256 * Quad, levels<Bits, Quad>(raw, t)), ...);
}

// Unpacks a panel to what an 8-bit panel is: 4 columns of 64 rows in 256 bytes.
template <int Bits>
static void unpack(const Matrix& w, int64_t panel, uint8_t* to) {
  using L = Layout<Bits>;
  const uint8_t* from = w.codes + panel * w.panel_bytes;
  const uint8_t* end = from + w.panel_bytes;
  const uint8_t* levels = kOffset7 ? w.shifted : w.levels;
  Table t[kBlocks];
  EDGEDEC_UNROLL for (int n = 0; n < kBlocks; ++n)
    t[n] = table(levels + 16 * w.group[panel * kBlocks + n]);
  for (; from < end; to += 256 * L::kQuads) {
    EDGEDEC_UNROLL for (int n = 0; n < kBlocks; ++n, from += L::kBytes) {
      prefetch(from + kAhead);
      store_levels<Bits>(unit<Bits>(from), t[n], to + 64 * n, typename L::Quads{});
    }
  }
}

template <int Bits, int Rows, int Blocks>
static void panel_tile(const Tile<Rows, Blocks>& tile, const uint8_t* w) {
  const Product& p = tile.p;
  w += 64 * tile.block;
  prefetch_results(tile);
  const int8_t* x[Rows];
  point_at_rows(tile, p.q, x);
  F32 y[Rows][Blocks];
  zero(y);
  for (int64_t s = 0, k = 0; s < p.scales; ++s) {
    I32 acc[Rows][Blocks];
    start_sums<Bits>(tile, s, acc);
    const int64_t until = end_of_block(p, s);
    add_bytes<Bits>(w + k / 4 * 256, x, k, until, acc);
    k = until;
    add_sums(tile, s, acc, y);
  }
  finish_tile(tile, y);
}

template <int Bits>
static void panel_bits(const Product& p, int64_t panel, const uint8_t* w) {
  for (int64_t m = 0; m < p.rows; m += kPanelRows)
    for (int block = 0; block < kBlocks; block += kPanelBlocks)
      panel_tile<Bits>(Tile<kPanelRows, kPanelBlocks>{p, m, panel, block}, w);
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

template <int Byte, int Rows, int Blocks>
EDGEDEC_INLINE void add_floats(const Bytes (&level)[Blocks], const float* const (&x)[Rows],
                               int64_t k, F32 (&y)[Rows][Blocks]) {
  F32 f[Blocks];
  EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) f[n] = byte_as_float<Byte>(level[n]);
  EDGEDEC_UNROLL for (int m = 0; m < Rows; ++m) {
    const F32 activation = splat(x[m][k + Byte]);
    EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) y[m][n] = fma(f[n], activation, y[m][n]);
  }
}

template <int Bits, int Quad, int Rows, int Blocks>
EDGEDEC_INLINE void add_float_quad(const Unit<Bits> (&raw)[Blocks], const Table (&t)[Blocks],
                                   const float* const (&x)[Rows], int64_t k,
                                   F32 (&y)[Rows][Blocks]) {
  Bytes level[Blocks];
  EDGEDEC_UNROLL for (int n = 0; n < Blocks; ++n) {
    level[n] = levels<Bits, Quad>(raw[n], t[n]);
    if constexpr (Bits == 8) level[n] = flip(level[n]);
  }
  k += 4 * Quad;
  add_floats<0>(level, x, k, y);
  add_floats<1>(level, x, k, y);
  add_floats<2>(level, x, k, y);
  add_floats<3>(level, x, k, y);
}

template <int Bits, int Rows, int Blocks, int... Quad>
EDGEDEC_INLINE void add_float_unit(const Unit<Bits> (&raw)[Blocks], const Table (&t)[Blocks],
                                   const float* const (&x)[Rows], int64_t k,
                                   F32 (&y)[Rows][Blocks], std::integer_sequence<int, Quad...>) {
  (add_float_quad<Bits, Quad>(raw, t, x, k, y), ...);
}

template <int Bits, int Rows, int Blocks>
static void float_tile(const Tile<Rows, Blocks>& tile) {
  using L = Layout<Bits>;
  const Product& p = tile.p;
  const uint8_t* w = p.w.codes + tile.panel * p.w.panel_bytes + tile.block * L::kBytes;
  const uint8_t* end = w + p.w.panel_bytes;
  Table t[Blocks];
  load_tables<Bits>(tile, p.w.levels, t);
  const float* x[Rows];
  point_at_rows(tile, p.x, x);
  F32 y[Rows][Blocks];
  zero(y);
  for (int64_t k = 0; w < end; k += L::kColumns, w += kBlocks * L::kBytes) {
    Unit<Bits> raw[Blocks];
    load_units<Bits>(w, raw);
    add_float_unit<Bits>(raw, t, x, k, y, typename L::Quads{});
  }
  finish_tile(tile, y);
}

template <int Bits>
static void float_bits(const Product& p, int64_t first, int64_t last) {
  constexpr int kNarrow = kDirectBlocks < 2 ? kDirectBlocks : 2;
  for (int64_t panel = first; panel < last; ++panel) {
    int64_t m = 0;
    for (; p.rows - m > 1; m += 4)
      for (int block = 0; block < kBlocks; block += kNarrow)
        float_tile<Bits>(Tile<4, kNarrow>{p, m, panel, block});
    if (p.rows - m == 1)
      for (int block = 0; block < kBlocks; block += kDirectBlocks)
        float_tile<Bits>(Tile<1, kDirectBlocks>{p, m, panel, block});
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
