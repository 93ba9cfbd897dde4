// edgedec.DecodeAttention and edgedec.MemoryAttention (kernels/decode_attention.py,
// kernels/memory_attention.py).
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "dispatch.h"
#include "operators.h"
#include "ort.h"

namespace edgedec {

namespace {

constexpr int64_t kMost = int64_t{1} << 24;
// Multiplications from which other threads help. Measured: docs/benchmarks.md.
constexpr double kParallelFrom = 2.5e5;

// What both operators share: attributes, the bias, and the work over rows and heads.
class Heads {
 public:
  Heads(const Info& info, size_t bias_input)
      : heads_(info.integer("q_num_heads")),
        kv_heads_(info.integer("kv_num_heads")),
        origin_(info.integer("origin")),
        scale_(info.number("scale")) {
    if (kv_heads_ < 1 || heads_ < kv_heads_ || heads_ > kMost || heads_ % kv_heads_) {
      throw Error("q_num_heads must be a multiple of kv_num_heads");
    }
    const auto bias = info.constant<float>(bias_input, "the bias");
    if (!bias) throw Error("the bias must be a constant initializer");
    if (bias.shape.rank != 2 || (bias.shape.dims[0] != 1 && bias.shape.dims[0] != heads_) ||
        bias.shape.dims[1] < 1 || bias.shape.dims[1] > kMost) {
      throw Error("the bias must be [1 or heads, distances]");
    }
    if (origin_ < 0 || origin_ >= bias.shape.dims[1]) throw Error("origin is outside of the bias");
    lines_ = bias.shape.dims[0];
    length_ = bias.shape.dims[1];
    // Reversed, so that it runs with the keys, with 16 copies of each end: any 16 neighbours,
    // clipped distances included, are one load.
    const int64_t line = length_ + 32;
    bias_.resize(static_cast<size_t>(lines_ * line));
    for (int64_t h = 0; h < lines_; ++h) {
      for (int64_t i = 0; i < line; ++i) {
        int64_t from = length_ - 1 - (i - 16);
        from = from < 0 ? 0 : from >= length_ ? length_ - 1 : from;
        bias_[static_cast<size_t>(h * line + i)] = bias.data[h * length_ + from];
      }
    }
  }

  // Channels of a head, from those of the queries [B, T, .] and of the keys [B, S, .].
  int64_t head_size(const Shape& query, const Shape& key) const {
    if (query.rank != 3 || key.rank != 3 || query.last() % heads_ || query.last() < heads_ ||
        query.last() > kMost || key.last() != query.last() / heads_ * kv_heads_ ||
        key.dims[0] != query.dims[0]) {
      throw Error("queries and keys do not have the shapes of these heads");
    }
    return query.last() / heads_;
  }

  // Fills in what the operators share, for batch row 0.
  Attention start(const Shape& query, int64_t size) const {
    Attention a;
    a.query_stride = query.last();
    a.stride = kv_heads_ * size;
    a.size = size;
    a.queries = query.dims[1];
    a.bias_length = length_;
    a.origin = origin_;
    a.scale = scale_;
    return a;
  }

  // Calls attention for every head of `rows` rows; row(b) is what to do for row b, from head 0 on.
  template <class Row>
  void run(const Context& context, int64_t rows, int64_t positions, const Row& row) const {
    const Attention sample = row(0);
    const double work = static_cast<double>(rows) * static_cast<double>(heads_) *
                        static_cast<double>(sample.queries) * static_cast<double>(positions) *
                        static_cast<double>(sample.size);
    // A task is a row, or where that pays some heads of a row that share keys and values.
    const int64_t group = heads_ / kv_heads_;
    const int64_t heads = work < kParallelFrom ? heads_ : group;
    const size_t tasks = work < kParallelFrom ? 1 : static_cast<size_t>(rows * kv_heads_);
    std::atomic<bool> failed{false};
    auto task = [&](size_t index) noexcept {
      const std::unique_ptr<float[]> scratch(new (std::nothrow) float[static_cast<size_t>(
          attention_scratch(heads, sample.queries, positions, sample.size))]);
      if (!scratch) {
        failed = true;
        return;
      }
      const int64_t first = tasks == 1 ? 0 : static_cast<int64_t>(index) / kv_heads_;
      const int64_t last = tasks == 1 ? rows : first + 1;
      const int64_t kv = tasks == 1 ? 0 : static_cast<int64_t>(index) % kv_heads_;
      for (int64_t b = first; b < last; ++b) {
        Attention a = row(b);
        a.heads = heads;
        a.group = group;
        a.query += kv * group * a.size;
        a.out += kv * group * a.size;
        a.key += kv * a.size;
        a.value += kv * a.size;
        a.bias_stride = lines_ == 1 ? 0 : length_ + 32;
        a.bias = bias_.data() + kv * group * a.bias_stride;
        routines().attention(a, scratch.get());
      }
    };
    context.parallel(tasks, task);
    if (failed) throw Error("there is not enough memory for its scores");
  }

 private:
  int64_t heads_, kv_heads_, origin_;
  float scale_;
  int64_t lines_ = 0, length_ = 0;
  std::vector<float> bias_;
};

class DecodeAttention {
 public:
  static constexpr const char* name = "DecodeAttention";
  static constexpr Ports<7> inputs = {{{kFloat}, {kFloat}, {kFloat}, {kFloat},
                                    {kFloat}, {kInt64}, {kFloat}}};
  static constexpr Ports<3> outputs = {{{kFloat}, {kFloat}, {kFloat}}};

  explicit DecodeAttention(const Info& info) : heads_(info, 6) {}

  void run(const Context& context) const {
    const auto query = context.input<float>(0, "the query");
    const auto key = context.input<float>(1, "the key");
    const auto value = context.input<float>(2, "the value");
    const auto past_key = context.input<float>(3, "the key cache");
    const auto past_value = context.input<float>(4, "the value cache");
    const auto past_length = context.input<int64_t>(5, "the past length");
    const int64_t size = heads_.head_size(query.shape, past_key.shape);
    const int64_t rows = query.shape.dims[0], fresh = query.shape.dims[1];
    const int64_t capacity = past_key.shape.dims[1], width = past_key.shape.last();
    if (!past_value.shape.is({rows, capacity, width}) || !key.shape.is({rows, fresh, width}) ||
        !value.shape.is({rows, fresh, width}) || !past_length.shape.is({rows})) {
      throw Error("keys, values, caches and lengths do not fit together");
    }
    int64_t longest = 0;
    for (int64_t b = 0; b < rows; ++b) {
      const int64_t n = past_length.data[b];
      if (n < 0 || n > capacity - fresh) throw Error("the cache has no room for the new tokens");
      longest = n > longest ? n : longest;
    }
    float* y = context.output<float>(0, query.shape);
    float* keys = context.output<float>(1, past_key.shape);
    float* values = context.output<float>(2, past_value.shape);
    append(past_key, key, past_length.data, keys);
    append(past_value, value, past_length.data, values);
    if (rows == 0 || fresh == 0) return;
    heads_.run(context, rows, longest + fresh, [&](int64_t b) {
      Attention a = heads_.start(query.shape, size);
      a.query = query.data + b * fresh * a.query_stride;
      a.out = y + b * fresh * a.query_stride;
      a.key = keys + b * capacity * width;
      a.value = values + b * capacity * width;
      a.first = past_length.data[b];
      a.positions = a.first + fresh;
      a.causal = true;
      return a;
    });
  }

 private:
  // Writes the new positions; the rest is copied only when the cache is not its own output.
  static void append(const Tensor<const float>& past, const Tensor<const float>& fresh,
                     const int64_t* past_length, float* present) {
    const int64_t rows = past.shape.dims[0], capacity = past.shape.dims[1];
    const int64_t width = past.shape.last(), count = fresh.shape.dims[1];
    if (present != past.data && past.shape.size() > 0) {
      std::memcpy(present, past.data, sizeof(float) * static_cast<size_t>(past.shape.size()));
    }
    for (int64_t b = 0; b < rows && count > 0; ++b) {
      std::memcpy(present + (b * capacity + past_length[b]) * width,
                  fresh.data + b * count * width,
                  sizeof(float) * static_cast<size_t>(count * width));
    }
  }

  Heads heads_;
};

class MemoryAttention {
 public:
  static constexpr const char* name = "MemoryAttention";
  static constexpr Ports<5> inputs = {{{kFloat}, {kFloat}, {kFloat}, {kFloat}, {kFloat}}};
  static constexpr Ports<1> outputs = {{{kFloat}}};

  explicit MemoryAttention(const Info& info) : heads_(info, 4) {}

  void run(const Context& context) const {
    const auto query = context.input<float>(0, "the query");
    const auto key = context.input<float>(1, "the key");
    const auto value = context.input<float>(2, "the value");
    const auto mask = context.input<float>(3, "the mask");
    const int64_t size = heads_.head_size(query.shape, key.shape);
    const int64_t rows = query.shape.dims[0], positions = key.shape.dims[1];
    const int64_t width = key.shape.last();
    if (!value.shape.is({rows, positions, width}) || !mask.shape.is({rows, 1, 1, positions})) {
      throw Error("keys, values and mask do not fit together");
    }
    float* y = context.output<float>(0, query.shape);
    const int64_t queries = query.shape.dims[1];
    if (rows == 0 || queries == 0) return;
    if (positions == 0) throw Error("there is nothing to attend to");
    heads_.run(context, rows, positions, [&](int64_t b) {
      Attention a = heads_.start(query.shape, size);
      a.query = query.data + b * queries * a.query_stride;
      a.out = y + b * queries * a.query_stride;
      a.key = key.data + b * positions * width;
      a.value = value.data + b * positions * width;
      a.mask = mask.data + b * positions;
      a.positions = positions;
      return a;
    });
  }

 private:
  Heads heads_;
};

}  // namespace

const OrtCustomOp* decode_attention() {
  static const Operator<DecodeAttention> op;
  return &op;
}

const OrtCustomOp* memory_attention() {
  static const Operator<MemoryAttention> op;
  return &op;
}

}  // namespace edgedec
