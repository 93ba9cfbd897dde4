// Runs every routine of every instruction set of this machine beside the scalar reference on random
// problems and compares the bits. Prints what it compared; exits with 1 at the first difference.
//
// With EDGEDEC_EMULATED the caller compiled isa_avx512vbmi.cc and isa_avxvnni.cc without their
// instructions, which the vector types then spell out, so that their logic runs here as well.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "dispatch.h"

namespace edgedec {
#if EDGEDEC_EMULATED
namespace avxvnni { extern const Routines routines; }
namespace avx512vbmi { extern const Routines routines; }
#endif
namespace scalar { extern const Routines routines; }
}  // namespace edgedec

using namespace edgedec;

namespace {

std::mt19937 g_random(20260101);

int64_t number(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(g_random);
}

std::vector<float> floats(int64_t n, float spread = 1.0f) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(g_random);
  return v;
}

std::vector<const Routines*> others() {
  std::vector<const Routines*> list;
  for (const Routines* const* r = available_routines(); *r; ++r) {
    if (*r != &scalar::routines) list.push_back(*r);
  }
#if EDGEDEC_EMULATED
  bool avx2 = false, avx512 = false;
  for (const Routines* r : list) {
    avx2 |= std::string(r->name) == "avx2";
    avx512 |= std::string(r->name) == "avx512";
  }
  if (avx2) list.push_back(&avxvnni::routines);
  if (avx512) list.push_back(&avx512vbmi::routines);
#endif
  return list;
}

void same(const void* a, const void* b, size_t bytes, const char* routine, const char* isa,
          const std::string& problem) {
  if (std::memcmp(a, b, bytes) == 0) return;
  std::printf("%s of %s differs from scalar: %s\n", routine, isa, problem.c_str());
  std::exit(1);
}

template <class T>
void same(const std::vector<T>& a, const std::vector<T>& b, const char* routine, const char* isa,
          const std::string& problem) {
  same(a.data(), b.data(), a.size() * sizeof(T), routine, isa, problem);
}

// A random packed matrix; its memory, and what the routines see of it.
struct Packed {
  std::vector<uint8_t> codes, levels, shifted;
  std::vector<int32_t> group, order;
  std::vector<float> scale, bias;
  Matrix w;

  Packed(int bits, int64_t rows, int64_t columns) {
    const int64_t unit = bits == 3 ? 32 : 32 / bits, bytes = bits == 3 ? 768 : 256;
    w.bits = bits;
    w.rows = rows;
    w.columns = columns;
    w.padded = round_up(columns, kPadding);
    w.panels = round_up(rows, kPanelSize) / kPanelSize;
    w.panel_bytes = round_up(columns, unit) / unit * bytes;
    codes.resize(static_cast<size_t>(w.panels * w.panel_bytes));
    for (uint8_t& c : codes) c = static_cast<uint8_t>(number(bits == 8 ? 1 : 0, 255));
    const int64_t groups = number(1, 3);
    for (int64_t g = 0; g < groups; ++g) {
      uint8_t row[16];
      for (int i = 0; i < 16; ++i) {
        row[i] = i < 1 << bits ? static_cast<uint8_t>(number(-63, 63)) : row[i % (1 << bits)];
      }
      for (uint8_t x : row) {
        levels.push_back(x);
        shifted.push_back(static_cast<uint8_t>(x + 64));
      }
    }
    group.resize(static_cast<size_t>(w.panels * kBlocks));
    for (int32_t& g : group) g = static_cast<int32_t>(number(0, groups - 1));
    scale = floats(w.panels * kPanelSize);
    bias = floats(w.panels * kPanelSize);
    w.codes = codes.data();
    w.levels = levels.data();
    w.shifted = shifted.data();
    w.group = group.data();
    w.scale = scale.data();
    if (number(0, 1)) w.bias = bias.data();
    if (number(0, 3) == 0) {
      order.resize(static_cast<size_t>(rows));
      for (int64_t i = 0; i < rows; ++i) order[static_cast<size_t>(i)] = static_cast<int32_t>(i);
      std::shuffle(order.begin(), order.end(), g_random);
      w.order = order.data();
    }
  }
};

void compare_products(const Routines& isa, int rounds) {
  const Routines& reference = scalar::routines;
  const int all_bits[] = {2, 3, 4, 8};
  for (int round = 0; round < rounds; ++round) {
    const int bits = all_bits[round % 4];
    const int64_t rows = number(1, 200), columns = number(1, 400), m = number(1, 19);
    const Packed packed(bits, rows, columns);
    Product p;
    p.w = packed.w;
    p.rows = m;
    const bool blocks = number(0, 1);
    p.scale_block = blocks ? kScaleBlock : p.w.padded;
    p.scales = round_up(columns, p.scale_block) / p.scale_block;
    const std::string problem = std::to_string(bits) + " bits, " + std::to_string(m) + " x " +
                                std::to_string(columns) + " x " + std::to_string(rows) +
                                (blocks ? ", blocks" : "") + (p.w.order ? ", order" : "");
    std::vector<float> x = floats(m * columns, number(0, 1) ? 1.0f : 1e-33f);
    if (m > 1 && number(0, 3) == 0) std::fill(x.begin(), x.begin() + columns, 0.0f);
    if (number(0, 9) == 0) x[static_cast<size_t>(number(0, m * columns - 1))] = INFINITY;

    std::vector<int8_t> q(static_cast<size_t>(m * p.w.padded)), q2(q.size());
    std::vector<float> scale(static_cast<size_t>(m * p.scales)), scale2(scale.size());
    std::vector<int32_t> sum(scale.size()), sum2(sum.size());
    reference.quantize(x.data(), m, columns, p.w.padded, p.scale_block, q.data(), scale.data(),
                       sum.data());
    isa.quantize(x.data(), m, columns, p.w.padded, p.scale_block, q2.data(), scale2.data(),
                 sum2.data());
    same(q, q2, "quantize", isa.name, problem);
    same(scale, scale2, "quantize", isa.name, problem);
    same(sum, sum2, "quantize", isa.name, problem);
    p.q = q.data();
    p.q_scale = scale.data();
    p.q_sum = sum.data();

    // One to three outputs, cut between blocks of rows.
    std::vector<float> y[2];
    for (auto& v : y) v.assign(static_cast<size_t>(m * rows), 0.0f);
    const int64_t cut = rows > 32 ? 16 * number(1, (rows - 1) / 16) : rows;
    auto into = [&](std::vector<float>& v) {
      p.out[0] = {v.data(), 0, cut};
      p.out[1] = {v.data() + m * cut, cut, rows - cut};
      p.out[2] = {nullptr, rows, 0};
    };
    into(y[0]);
    reference.direct(p, 0, p.w.panels);
    into(y[1]);
    isa.direct(p, 0, p.w.panels);
    same(y[0], y[1], "direct", isa.name, problem);
    std::fill(y[1].begin(), y[1].end(), 0.0f);
    std::vector<uint8_t> scratch(static_cast<size_t>(p.w.padded * kPanelSize));
    for (int64_t i = 0; i < p.w.panels; ++i) isa.panel(p, i, scratch.data());
    same(y[0], y[1], "panel", isa.name, problem);

    std::vector<float> padded(static_cast<size_t>(m * p.w.padded), 0.0f);
    for (int64_t i = 0; i < m; ++i) {
      std::copy_n(x.begin() + i * columns, columns, padded.begin() + i * p.w.padded);
    }
    for (float& v : padded) v = std::isfinite(v) ? v : 1.0f;
    p.x = padded.data();
    into(y[0]);
    reference.floats(p, 0, p.w.panels);
    into(y[1]);
    isa.floats(p, 0, p.w.panels);
    same(y[0], y[1], "floats", isa.name, problem);
  }
}

void compare_attention(const Routines& isa, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    Attention a;
    a.size = number(1, 100);
    a.group = number(1, 2);
    a.heads = a.group * number(1, 3);
    if (number(0, 2) == 0) a.size = 64;
    a.query_stride = a.heads * a.size + number(0, 9);
    a.stride = a.heads / a.group * a.size + number(0, 9);
    a.queries = number(1, 20);
    a.causal = number(0, 1);
    a.first = a.causal ? number(0, 100) : 0;
    a.positions = a.causal ? a.first + a.queries : number(1, 150);
    a.bias_length = number(1, 200);
    a.origin = number(0, a.bias_length - 1);
    a.scale = 0.25f;
    const std::string problem = std::to_string(a.queries) + " queries, " +
                                std::to_string(a.positions) + " positions, " +
                                std::to_string(a.heads) + " heads of " +
                                std::to_string(a.size) + (a.causal ? ", causal" : "");
    const auto query = floats(a.queries * a.query_stride);
    const auto key = floats(a.positions * a.stride), value = floats(a.positions * a.stride);
    a.bias_stride = number(0, 1) * (a.bias_length + 32);
    const auto bias = floats(a.heads * (a.bias_length + 32));
    auto mask = floats(a.positions);
    for (float& x : mask) x = x > 0.5f ? -1e9f : 0.0f;
    a.query = query.data();
    a.key = key.data();
    a.value = value.data();
    a.bias = bias.data();
    if (!a.causal) a.mask = mask.data();
    std::vector<float> y[2];
    const Routines* both[] = {&scalar::routines, &isa};
    for (int i = 0; i < 2; ++i) {
      y[i].assign(query.size(), 0.0f);
      a.out = y[i].data();
      std::vector<float> scratch(
          static_cast<size_t>(attention_scratch(a.heads, a.queries, a.positions, a.size)));
      both[i]->attention(a, scratch.data());
    }
    same(y[0], y[1], "attention", isa.name, problem);
  }
}

void compare_rows(const Routines& isa, int rounds) {
  for (int round = 0; round < rounds; ++round) {
    const int64_t rows = number(1, 5), n = number(1, 300);
    const auto x = floats(rows * n), delta = floats(rows * n), scale = floats(n);
    const std::string problem = std::to_string(rows) + " rows of " + std::to_string(n);
    std::vector<float> sum[2], y[2];
    int64_t top[2];
    const Routines* both[] = {&scalar::routines, &isa};
    for (int i = 0; i < 2; ++i) {
      sum[i].resize(x.size());
      y[i].resize(x.size());
      both[i]->add_norm(x.data(), delta.data(), scale.data(), 1e-6f, rows, n, sum[i].data(),
                        y[i].data());
      top[i] = both[i]->argmax(x.data(), rows * n);
    }
    same(sum[0], sum[1], "add_norm", isa.name, problem);
    same(y[0], y[1], "add_norm", isa.name, problem);
    same(&top[0], &top[1], sizeof top[0], "argmax", isa.name, problem);
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 400;
  for (const Routines* isa : others()) {
    compare_products(*isa, rounds);
    compare_attention(*isa, rounds);
    compare_rows(*isa, rounds);
    std::printf("%s: %d problems of each routine equal scalar\n", isa->name, rounds);
  }
  return 0;
}
