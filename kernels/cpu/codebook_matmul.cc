// edgedec.CodebookMatMul (kernels/codebook_matmul.py).
#include <atomic>
#include <cstring>
#include <memory>
#include <new>

#include "dispatch.h"
#include "operators.h"
#include "weights.h"

namespace edgedec {

namespace {

enum class Compute { kInt8, kInt8Block, kBf16, kFp32 };

Compute compute_mode(const std::string& name) {
  if (name == "int8") return Compute::kInt8;
  if (name == "int8-block") return Compute::kInt8Block;
  if (name == "bf16") return Compute::kBf16;
  if (name == "fp32") return Compute::kFp32;
  throw Error("compute must be int8, int8-block, bf16 or fp32");
}

// Rows of activations from which a panel is unpacked once instead of being looked up for each
// 8 rows, and products of this size from which other threads help. Measured: docs/benchmarks.md.
constexpr int64_t kPanelRowsFrom = 17;
constexpr double kParallelFrom = 2.5e5;

float to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return x;  // not a number
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Uninitialised memory for one run.
template <class T>
std::unique_ptr<T[]> memory(int64_t count) {
  T* p = new (std::nothrow) T[static_cast<size_t>(count)];
  if (!p) throw Error("there is not enough memory for its activations");
  return std::unique_ptr<T[]>(p);
}

class CodebookMatMul {
 public:
  static constexpr const char* name = "CodebookMatMul";
  static constexpr Ports<7> inputs = {{{kFloat}, {kUint8}, {kInt8}, {kFloat}, {kInt32},
                                    {kFloat, kOptional}, {kInt32, kOptional}}};
  static constexpr Ports<3> outputs = {{{kFloat}, {kFloat, kOptional}, {kFloat, kOptional}}};

  explicit CodebookMatMul(const Info& info)
      : weights_(info, 1, -1),
        compute_(compute_mode(info.text("compute"))),
        inputs_(info.input_count()) {
    weights_.set_order(info.constant<int32_t>(6, "the row order"));
    weights_.set_bias(info.constant<float>(5, "the bias"));
    info.integers("splits", splits_, kSegments);
    int64_t sum = 0;
    for (int64_t n : splits_) {
      // A block of 16 rows goes to one output.
      if (n < 0 || n > weights_.matrix().rows || (n && sum % kBlockRows)) {
        throw Error("the splits must be multiples of 16");
      }
      sum += n;
    }
    if (sum != weights_.matrix().rows) throw Error("the splits do not add up to the rows");
  }

  void run(const Context& context) const {
    const auto x = context.input<float>(0, "X");
    Product p;
    p.w = weights_.matrix();
    if (!p.w.bias && inputs_ > 5) context.refuse_computed(5, "the bias");
    if (!p.w.order && inputs_ > 6) context.refuse_computed(6, "the row order");
    p.w.columns = x.shape.last();
    const int64_t padded = round_up(p.w.columns, kPadding);
    if (x.shape.rank == 0 || p.w.columns < 1 || !fits(p.w)) {
      throw Error("X has " + std::to_string(p.w.columns) +
                  " columns, which are not those of the matrix");
    }
    p.w.padded = padded;
    p.rows = x.shape.size() / p.w.columns;
    Shape shape = x.shape;
    int64_t column = 0;
    for (int i = 0; i < kSegments; ++i) {
      p.out[i].first = column;
      p.out[i].columns = splits_[i];
      column += splits_[i];
      if (splits_[i] == 0) continue;
      shape.dims[shape.rank - 1] = splits_[i];
      p.out[i].data = context.output<float>(static_cast<size_t>(i), shape);
    }
    if (p.rows == 0) return;
    if (compute_ == Compute::kInt8 || compute_ == Compute::kInt8Block) integers(context, x.data, p);
    else floats(context, x.data, p);
  }

 private:
  // Whether panels hold that many columns.
  static bool fits(const Matrix& w) {
    const int64_t unit = w.bits == 3 ? 32 : 32 / w.bits;
    const int64_t bytes = w.bits == 3 ? 768 : 256;
    return round_up(w.columns, unit) / unit * bytes == w.panel_bytes;
  }

  void integers(const Context& context, const float* x, Product& p) const {
    p.scale_block = compute_ == Compute::kInt8 ? p.w.padded : kScaleBlock;
    p.scales = round_up(p.w.columns, p.scale_block) / p.scale_block;
    const auto q = memory<int8_t>(p.rows * p.w.padded);
    const auto scale = memory<float>(p.rows * p.scales);
    const auto sum = memory<int32_t>(p.rows * p.scales);
    constexpr int64_t kRows = 8;  // per task
    const bool alone = small(p.rows * p.w.columns * 16);
    auto quantize = [&](size_t i) noexcept {
      const int64_t m = alone ? 0 : static_cast<int64_t>(i) * kRows;
      const int64_t n = alone || p.rows - m < kRows ? p.rows - m : kRows;
      routines().quantize(x + m * p.w.columns, n, p.w.columns, p.w.padded, p.scale_block,
                          q.get() + m * p.w.padded, scale.get() + m * p.scales,
                          sum.get() + m * p.scales);
    };
    context.parallel(alone ? 1 : static_cast<size_t>((p.rows + kRows - 1) / kRows), quantize);
    p.q = q.get();
    p.q_scale = scale.get();
    p.q_sum = sum.get();
    if (p.rows < kPanelRowsFrom) {
      const auto work = [&](int64_t first, int64_t last) noexcept {
        routines().direct(p, first, last);
      };
      over_panels(context, p, work);
      return;
    }
    std::atomic<bool> failed{false};
    const auto work = [&](int64_t first, int64_t last) noexcept {
      const std::unique_ptr<uint8_t[]> scratch(
          new (std::nothrow) uint8_t[static_cast<size_t>(p.w.padded * kPanelSize)]);
      if (!scratch) {
        failed = true;
        return;
      }
      for (int64_t panel = first; panel < last; ++panel) routines().panel(p, panel, scratch.get());
    };
    over_panels(context, p, work);
    if (failed) throw Error("there is not enough memory to unpack its weights");
  }

  void floats(const Context& context, const float* x, Product& p) const {
    std::unique_ptr<float[]> copy;
    if (compute_ == Compute::kBf16 || p.w.padded != p.w.columns) {
      copy = memory<float>(p.rows * p.w.padded);
      for (int64_t m = 0; m < p.rows; ++m) {
        float* to = copy.get() + m * p.w.padded;
        const float* from = x + m * p.w.columns;
        for (int64_t k = 0; k < p.w.columns; ++k) {
          to[k] = compute_ == Compute::kBf16 ? to_bf16(from[k]) : from[k];
        }
        for (int64_t k = p.w.columns; k < p.w.padded; ++k) to[k] = 0.0f;
      }
      x = copy.get();
    }
    p.x = x;
    const auto work = [&](int64_t first, int64_t last) noexcept {
      routines().floats(p, first, last);
    };
    over_panels(context, p, work);
  }

  static bool small(int64_t operations) {
    return static_cast<double>(operations) < kParallelFrom;
  }

  // Calls work(first, last) for all panels, on several threads where that pays.
  template <class F>
  static void over_panels(const Context& context, const Product& p, F& work) {
    if (small(p.w.panels * kPanelSize * p.w.columns * (p.rows + 1) / 2)) {
      work(int64_t{0}, p.w.panels);
      return;
    }
    const int64_t step = p.w.panels < 16 ? 2 : 4;  // which one row reads at once
    auto task = [&](size_t i) noexcept {
      const int64_t first = static_cast<int64_t>(i) * step;
      work(first, first + step < p.w.panels ? first + step : p.w.panels);
    };
    context.parallel(static_cast<size_t>((p.w.panels + step - 1) / step), task);
  }

  Weights weights_;
  Compute compute_;
  size_t inputs_;
  int64_t splits_[kSegments] = {};
};

}  // namespace

const OrtCustomOp* codebook_matmul() {
  static const Operator<CodebookMatMul> op;
  return &op;
}

}  // namespace edgedec
