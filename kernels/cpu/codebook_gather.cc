// edgedec.CodebookGather (kernels/codebook_gather.py).
#include "operators.h"
#include "weights.h"

namespace edgedec {

namespace {

class CodebookGather {
 public:
  static constexpr const char* name = "CodebookGather";
  static constexpr Ports<6> inputs = {{{kInt64}, {kUint8}, {kInt8},
                                    {kFloat}, {kInt32}, {kInt32, kOptional}}};
  static constexpr Ports<1> outputs = {{{kFloat}}};

  explicit CodebookGather(const Info& info)
      : weights_(info, 1, positive(info.integer("K"))), inputs_(info.input_count()) {
    weights_.set_order(info.constant<int32_t>(5, "the row order"));
  }

  void run(const Context& context) const {
    const auto indices = context.input<int64_t>(0, "the indices");
    const auto& packed = weights_.packed_row_of();
    if (packed.empty() && inputs_ > 5) context.refuse_computed(5, "the row order");
    Shape shape = indices.shape;
    if (shape.rank == kMaxRank) throw Error("the indices have too many axes");
    const int64_t width = weights_.matrix().columns;
    shape.dims[shape.rank++] = width;
    float* y = context.output<float>(0, shape);
    const int64_t count = indices.shape.size();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = indices.data[i];
      if (row < 0 || row >= weights_.matrix().rows) {
        throw Error("the index " + std::to_string(row) + " is outside of the table's " +
                    std::to_string(weights_.matrix().rows) + " rows");
      }
      weights_.read_row(packed.empty() ? row : packed[static_cast<size_t>(row)], y + i * width);
    }
  }

 private:
  static int64_t positive(int64_t k) {
    if (k < 1) throw Error("K must be at least 1");
    return k;
  }

  Weights weights_;
  size_t inputs_;
};

}  // namespace

const OrtCustomOp* codebook_gather() {
  static const Operator<CodebookGather> op;
  return &op;
}

}  // namespace edgedec
