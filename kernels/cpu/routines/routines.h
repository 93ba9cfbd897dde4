// The work of the operators, as plain functions that exist once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgedec {

constexpr int64_t kBlockRows = 16;                // rows that share a table of levels
constexpr int64_t kPanelSize = 64;                // rows that are packed together
constexpr int64_t kBlocks = kPanelSize / kBlockRows;
constexpr int64_t kScaleBlock = 128;              // columns per activation scale in int8-block
constexpr int64_t kPadding = 32;                  // columns are padded to a multiple of this

// A packed matrix: what kernels/packing.py describes, checked.
struct Matrix {
  int bits = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t padded = 0;                 // columns, up to a multiple of kPadding
  int64_t panels = 0;
  int64_t panel_bytes = 0;
  const uint8_t* codes = nullptr;
  const uint8_t* levels = nullptr;    // [groups][16] int8 levels, repeated up to 16
  const uint8_t* shifted = nullptr;   // the same plus 64
  const int32_t* group = nullptr;     // of each block
  const float* scale = nullptr;       // [64 panels]
  const float* bias = nullptr;        // [64 panels] or null, in packed order
  const int32_t* order = nullptr;     // packed row -> column of the result, or null
};

// Part of a result's columns, in a tensor of its own.
struct Segment {
  float* data = nullptr;
  int64_t first = 0;    // its first column in the whole result
  int64_t columns = 0;  // a row of the tensor
};
constexpr int kSegments = 3;

struct Product {
  Matrix w;
  int64_t rows = 0;                   // of the activations
  const int8_t* q = nullptr;          // [rows][padded]
  const float* q_scale = nullptr;     // [rows][scales]
  const int32_t* q_sum = nullptr;     // [rows][scales]
  int64_t scale_block = 0;            // columns per scale: padded, or kScaleBlock
  int64_t scales = 0;
  const float* x = nullptr;           // [rows][padded]: float modes
  Segment out[kSegments];             // in order of columns; unused ones have no columns
};

// Attention of some heads of one batch row; positions lie `stride` floats apart.
struct Attention {
  const float* query = nullptr;       // [T] heads of `size`, query_stride apart
  const float* key = nullptr;         // [positions] heads / group of `size`
  const float* value = nullptr;
  const float* mask = nullptr;        // [positions] or null
  const float* bias = nullptr;        // of a head: reversed, with 16 copies of each end around
  float* out = nullptr;               // like query
  int64_t query_stride = 0;
  int64_t stride = 0;
  int64_t bias_stride = 0;            // floats from head to head; 0 where they share it
  int64_t heads = 1;
  int64_t group = 1;                  // query heads per head of keys and values
  int64_t size = 0;                   // channels of a head
  int64_t queries = 0;                // T
  int64_t positions = 0;              // keys that there are
  int64_t first = 0;                  // position of query 0
  int64_t bias_length = 0;            // L
  int64_t origin = 0;
  float scale = 0;
  bool causal = false;
};

struct Routines {
  const char* name;
  bool emulated;  // its compiler did not know the instructions: right, and very slow

  // Rounds rows of x [rows][columns] to int8 [rows][padded], with a scale and a sum per block.
  void (*quantize)(const float* x, int64_t rows, int64_t columns, int64_t padded,
                   int64_t scale_block, int8_t* q, float* scale, int32_t* sum);

  // Few rows: reads codes straight from the panels `first` <= p < `last`.
  void (*direct)(const Product&, int64_t first, int64_t last);

  // Many rows: unpacks one panel to `scratch` ([padded / 4][256] bytes), then multiplies.
  void (*panel)(const Product&, int64_t panel, uint8_t* scratch);

  // The same products in float32.
  void (*floats)(const Product&, int64_t first, int64_t last);

  // `scratch` holds `attention_scratch(...)` floats.
  void (*attention)(const Attention&, float* scratch);

  // Rows [rows][n]: sum = x + delta, y = sum / sqrt(mean(sum^2) + epsilon) * scale.
  void (*add_norm)(const float* x, const float* delta, const float* scale, float epsilon,
                   int64_t rows, int64_t n, float* sum, float* y);

  // The first index of the largest of n numbers.
  int64_t (*argmax)(const float* x, int64_t n);
};

// Queries above this many go through copies of keys and values.
constexpr int64_t kFewQueries = 4;

static inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Floats of scratch that attention of so many heads over so many positions needs.
static inline int64_t attention_scratch(int64_t heads, int64_t queries, int64_t positions, int64_t size) {
  const int64_t line = round_up(positions, 64);
  return queries > kFewQueries ? line * (2 * size + 8) : heads * (256 + line);
}

}  // namespace edgedec
