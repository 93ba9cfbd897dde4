#include "weights.h"

#include <cstring>

namespace edgedec {

namespace {

constexpr int64_t kMost = int64_t{1} << 24;         // rows, groups
constexpr int64_t kMostColumns = int64_t{1} << 17;  // whose sums of products still fit int32

// Columns that one unit of a panel covers, and its bytes (kernels/packing.py).
struct UnitSize {
  int64_t columns, bytes;
};
UnitSize unit_of(int bits) {
  switch (bits) {
    case 2: return {16, 256};
    case 3: return {32, 768};
    case 4: return {8, 256};
    case 8: return {4, 256};
    default: throw Error("bits must be 2, 3, 4 or 8");
  }
}

// One row of a packed matrix: its first bytes, and the weights that its codes stand for.
struct Row {
  const uint8_t* codes;
  float value[16];
  float scale;
};

template <int Bits>
float weight_of(const Row& r, const uint8_t* unit, int quad, int byte) {
  if constexpr (Bits == 8) return static_cast<float>(unit[byte] - 128) * r.scale;
  int code;
  if constexpr (Bits == 3) {
    code = (unit[64 * (quad / 4) + byte] >> (2 * (quad % 4)) & 3) |
           (unit[128 + byte] >> quad & 1) << 2;
  } else {
    code = unit[byte] >> (Bits * quad) & ((1 << Bits) - 1);
  }
  return r.value[code & 15];
}

template <int Bits>
void read_codes(const Row& r, int64_t columns, float* out) {
  constexpr int kQuads = Bits == 3 ? 8 : 8 / Bits, kColumns = 4 * kQuads;
  constexpr int64_t kBytes = Bits == 3 ? 768 : 256;
  const uint8_t* unit = r.codes;
  int64_t k = 0;
  for (; k + kColumns <= columns; k += kColumns, unit += kBytes)
    for (int quad = 0; quad < kQuads; ++quad)
      for (int byte = 0; byte < 4; ++byte)
        out[k + 4 * quad + byte] = weight_of<Bits>(r, unit, quad, byte);
  for (int i = 0; k + i < columns; ++i) out[k + i] = weight_of<Bits>(r, unit, i / 4, i % 4);
}

}  // namespace

Weights::Weights(const Info& info, size_t first, int64_t columns) {
  const int64_t bits = info.integer("bits");
  const UnitSize unit = unit_of(bits > 0 && bits < 9 ? static_cast<int>(bits) : 0);
  matrix_.bits = static_cast<int>(bits);
  const auto codes = info.constant<uint8_t>(first, "the codes");
  const auto levels = info.constant<int8_t>(first + 1, "the levels");
  const auto scale = info.constant<float>(first + 2, "the row scales");
  const auto groups = info.constant<int32_t>(first + 3, "the groups");
  if (!codes || !levels || !scale || !groups) {
    throw Error("codes, levels, row scales and groups must be constant initializers");
  }
  if (scale.shape.rank != 1 || scale.shape.dims[0] < 1 || scale.shape.dims[0] > kMost) {
    throw Error("the row scales must be one number per row");
  }
  if (codes.shape.rank != 3 || codes.shape.dims[2] != unit.bytes || codes.shape.dims[1] < 1 ||
      codes.shape.dims[1] > kMostColumns / unit.columns) {
    throw Error("the codes are not packed for these bits");
  }
  matrix_.rows = scale.shape.dims[0];
  matrix_.panels = round_up(matrix_.rows, kPanelSize) / kPanelSize;
  if (codes.shape.dims[0] != matrix_.panels) throw Error("codes and row scales do not fit");
  const int64_t units = codes.shape.dims[1];
  // A product learns its width from its input; a table has it as an attribute.
  if (columns >= 0 && (columns < 1 || columns > kMostColumns ||
                       round_up(columns, unit.columns) / unit.columns != units)) {
    throw Error("the codes do not have as many columns as K says");
  }
  matrix_.columns = columns;
  matrix_.padded = round_up(units * unit.columns, kPadding);
  matrix_.panel_bytes = units * unit.bytes;
  matrix_.codes = codes.data;
  scale_.assign(static_cast<size_t>(matrix_.panels * kPanelSize), 0.0f);
  std::memcpy(scale_.data(), scale.data, sizeof(float) * static_cast<size_t>(matrix_.rows));
  matrix_.scale = scale_.data();
  set_levels(levels);
  set_groups(groups, levels.shape.dims[0]);
}

void Weights::set_levels(const Tensor<const int8_t>& levels) {
  const int64_t count = int64_t{1} << matrix_.bits;
  if (levels.shape.rank != 2 || levels.shape.dims[1] != count || levels.shape.dims[0] < 1 ||
      levels.shape.dims[0] > kMost) {
    throw Error("the levels must be [groups, 2^bits]");
  }
  if (matrix_.bits == 8) {
    bool plain = levels.shape.dims[0] == 1;
    for (int64_t i = 0; plain && i < count; ++i) plain = levels.data[i] == i - 128;
    if (!plain) throw Error("the levels of 8 bits must be -128 to 127");
    levels_.assign(16, 0);
    shifted_.assign(16, 0);
  } else {
    const int64_t groups = levels.shape.dims[0];
    levels_.resize(static_cast<size_t>(16 * groups));
    shifted_.resize(levels_.size());
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t i = 0; i < 16; ++i) {
        const int level = levels.data[g * count + i % count];
        if (level < -63 || level > 63) throw Error("a level is outside of -63 to 63");
        levels_[static_cast<size_t>(16 * g + i)] = static_cast<uint8_t>(level);
        shifted_[static_cast<size_t>(16 * g + i)] = static_cast<uint8_t>(level + 64);
      }
    }
  }
  matrix_.levels = levels_.data();
  matrix_.shifted = shifted_.data();
}

void Weights::set_groups(const Tensor<const int32_t>& groups, int64_t count) {
  if (!groups.shape.is({matrix_.panels * kBlocks})) {
    throw Error("there must be one group for every 16 rows");
  }
  group_.assign(groups.data, groups.data + matrix_.panels * kBlocks);
  for (int32_t group : group_) {
    if (group < 0 || group >= count) throw Error("a group has no levels");
  }
  matrix_.group = group_.data();
}

void Weights::set_bias(const Tensor<const float>& bias) {
  if (!bias) return;
  if (!bias.shape.is({matrix_.rows})) throw Error("the bias must be one number per row");
  bias_.assign(static_cast<size_t>(matrix_.panels * kPanelSize), 0.0f);
  for (int64_t row = 0; row < matrix_.rows; ++row) {
    bias_[static_cast<size_t>(row)] = bias.data[matrix_.order ? matrix_.order[row] : row];
  }
  matrix_.bias = bias_.data();
}

void Weights::set_order(const Tensor<const int32_t>& order) {
  if (!order) return;
  if (!order.shape.is({matrix_.rows})) throw Error("the row order must be one number per row");
  packed_row_of_.assign(static_cast<size_t>(matrix_.rows), -1);
  order_.assign(order.data, order.data + matrix_.rows);
  for (int64_t row = 0; row < matrix_.rows; ++row) {
    const int32_t to = order_[static_cast<size_t>(row)];
    if (to < 0 || to >= matrix_.rows || packed_row_of_[static_cast<size_t>(to)] >= 0) {
      throw Error("the row order is no permutation");
    }
    packed_row_of_[static_cast<size_t>(to)] = static_cast<int32_t>(row);
  }
  matrix_.order = order_.data();
}

void Weights::read_row(int64_t row, float* out) const {
  const int64_t panel = row / kPanelSize, block = row % kPanelSize / kBlockRows;
  const UnitSize unit = unit_of(matrix_.bits);
  Row r;
  r.codes = matrix_.codes + panel * matrix_.panel_bytes + block * (unit.bytes / kBlocks) +
            4 * (row % kBlockRows);
  const uint8_t* levels = matrix_.levels + 16 * matrix_.group[panel * kBlocks + block];
  for (int i = 0; i < 16; ++i) {
    r.value[i] = static_cast<float>(static_cast<int8_t>(levels[i])) * matrix_.scale[row];
  }
  r.scale = matrix_.scale[row];
  switch (matrix_.bits) {
    case 2: return read_codes<2>(r, matrix_.columns, out);
    case 3: return read_codes<3>(r, matrix_.columns, out);
    case 4: return read_codes<4>(r, matrix_.columns, out);
    default: return read_codes<8>(r, matrix_.columns, out);
  }
}

}  // namespace edgedec
