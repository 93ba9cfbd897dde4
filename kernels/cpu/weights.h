// A packed matrix as the graph's initializers give it, checked once when the kernel is created.
#pragma once

#include <vector>

#include "ort.h"
#include "routines/routines.h"

namespace edgedec {

class Weights {
 public:
  // Reads the constant inputs codes, levels, row_scale and group_of_block from input `first` on.
  // Throws Error when they do not fit together: a bundle may come from a stranger.
  Weights(const Info& info, size_t first, int64_t columns);

  const Matrix& matrix() const { return matrix_; }

  // A row of the matrix: levels times the row's scale.
  void read_row(int64_t packed_row, float* out) const;

  // The other constants, which only some operators have. `order` must be a permutation.
  void set_bias(const Tensor<const float>& bias);
  void set_order(const Tensor<const int32_t>& order);
  const std::vector<int32_t>& packed_row_of() const { return packed_row_of_; }

 private:
  void set_levels(const Tensor<const int8_t>& levels);
  void set_groups(const Tensor<const int32_t>& groups, int64_t count);

  Matrix matrix_;
  std::vector<uint8_t> levels_, shifted_;
  std::vector<int32_t> group_, order_, packed_row_of_;
  std::vector<float> scale_, bias_;
};

}  // namespace edgedec
