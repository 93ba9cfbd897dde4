// edgedec.AddRMSNorm (kernels/add_rms_norm.py) and edgedec.ArgMax (kernels/arg_max.py).
#include "dispatch.h"
#include "operators.h"
#include "ort.h"

namespace edgedec {

namespace {

// Numbers from which other threads help.
constexpr int64_t kParallelFrom = 1 << 16;

class AddRmsNorm {
 public:
  static constexpr const char* name = "AddRMSNorm";
  static constexpr Ports<3> inputs = {{{kFloat}, {kFloat}, {kFloat}}};
  static constexpr Ports<2> outputs = {{{kFloat}, {kFloat}}};

  explicit AddRmsNorm(const Info& info) : epsilon_(info.number("epsilon")) {}

  void run(const Context& context) const {
    const auto x = context.input<float>(0, "X");
    const auto delta = context.input<float>(1, "the addend");
    const auto scale = context.input<float>(2, "the scale");
    const int64_t n = x.shape.last();
    if (!same(x.shape, delta.shape) || x.shape.rank == 0 || !scale.shape.is({n}) || n < 1) {
      throw Error("its inputs do not have the same shape");
    }
    float* y = context.output<float>(0, x.shape);
    float* sum = context.output<float>(1, x.shape);
    const int64_t rows = x.shape.size() / n;
    if (rows == 0) return;
    const int64_t step = rows * n < kParallelFrom ? rows : 8;
    auto task = [&](size_t i) noexcept {
      const int64_t first = static_cast<int64_t>(i) * step;
      const int64_t count = rows - first < step ? rows - first : step;
      routines().add_norm(x.data + first * n, delta.data + first * n, scale.data, epsilon_, count,
                          n, sum + first * n, y + first * n);
    };
    context.parallel(static_cast<size_t>((rows + step - 1) / step), task);
  }

 private:
  static bool same(const Shape& a, const Shape& b) {
    if (a.rank != b.rank) return false;
    for (size_t i = 0; i < a.rank; ++i) {
      if (a.dims[i] != b.dims[i]) return false;
    }
    return true;
  }

  float epsilon_;
};

class ArgMax {
 public:
  static constexpr const char* name = "ArgMax";
  static constexpr Ports<1> inputs = {{{kFloat}}};
  static constexpr Ports<1> outputs = {{{kInt64}}};

  explicit ArgMax(const Info&) {}

  void run(const Context& context) const {
    const auto x = context.input<float>(0, "X");
    const int64_t n = x.shape.last();
    if (x.shape.rank == 0 || n < 1) throw Error("there is nothing to choose from");
    Shape shape = x.shape;
    --shape.rank;
    int64_t* y = context.output<int64_t>(0, shape);
    if (!y) throw Error("the output is missing");
    const int64_t rows = x.shape.size() / n;
    for (int64_t m = 0; m < rows; ++m) y[m] = routines().argmax(x.data + m * n, n);
  }
};

}  // namespace

const OrtCustomOp* add_rms_norm() {
  static const Operator<AddRmsNorm> op;
  return &op;
}

const OrtCustomOp* arg_max() {
  static const Operator<ArgMax> op;
  return &op;
}

}  // namespace edgedec
