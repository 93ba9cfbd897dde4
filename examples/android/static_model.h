// Runs an encoder-decoder that `edgedec export --device qnn --soc CHIP` wrote, by ONNX Runtime's
// C++ interface alone. What the ports mean is in docs/npu.md; types and shapes are read from the
// graphs, so it serves every --quant and --kv.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace edgedec {

constexpr float kMasked = -40.0f;  // added to a score that must not count

// Bytes of one number in a port.
inline size_t size_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16:
      return 2;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return 1;
    default:
      throw std::runtime_error("a port has a type that edgedec does not write");
  }
}

// An input or output, with memory of its own that stays where it is.
struct Port {
  std::string name;
  std::vector<int64_t> shape;
  ONNXTensorElementDataType type;
  std::vector<uint8_t> data;

  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data.data());
  }
};

// A session with memory bound to its ports.
class Graph {
 public:
  Graph(Ort::Env& env, const std::string& file, const Ort::SessionOptions& options)
      : session_(env, file.c_str(), options) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (size_t i = 0; i < session_.GetInputCount(); ++i) {
      std::string name = session_.GetInputNameAllocated(i, allocator).get();
      add(inputs_, name, session_.GetInputTypeInfo(i));
    }
    for (size_t i = 0; i < session_.GetOutputCount(); ++i) {
      std::string name = session_.GetOutputNameAllocated(i, allocator).get();
      if (name == "logits") continue;  // greedy decoding reads none
      add(outputs_, name, session_.GetOutputTypeInfo(i));
    }
    bind(inputs_, input_names_, input_values_);
    bind(outputs_, output_names_, output_values_);
  }

  Port* find_input(const std::string& name) { return find(inputs_, name); }
  Port& input(const std::string& name) { return need(inputs_, name); }
  Port& output(const std::string& name) { return need(outputs_, name); }
  std::vector<Port>& outputs() { return outputs_; }

  void run() {
    session_.Run(Ort::RunOptions{nullptr}, input_names_.data(), input_values_.data(),
                 input_values_.size(), output_names_.data(), output_values_.data(),
                 output_values_.size());
  }

 private:
  static void add(std::vector<Port>& ports, const std::string& name, const Ort::TypeInfo& info) {
    auto tensor = info.GetTensorTypeAndShapeInfo();
    Port port{name, tensor.GetShape(), tensor.GetElementType(), {}};
    port.data.resize(tensor.GetElementCount() * size_of(port.type));
    ports.push_back(std::move(port));
  }

  static void bind(std::vector<Port>& ports, std::vector<const char*>& names,
                   std::vector<Ort::Value>& values) {
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    for (Port& port : ports) {
      names.push_back(port.name.c_str());
      values.push_back(Ort::Value::CreateTensor(memory, port.data.data(), port.data.size(),
                                                port.shape.data(), port.shape.size(), port.type));
    }
  }

  static Port* find(std::vector<Port>& ports, const std::string& name) {
    auto found = std::find_if(ports.begin(), ports.end(),
                              [&](const Port& port) { return port.name == name; });
    return found == ports.end() ? nullptr : &*found;
  }

  static Port& need(std::vector<Port>& ports, const std::string& name) {
    Port* port = find(ports, name);
    if (port == nullptr) throw std::runtime_error("the graph has no port " + name);
    return *port;
  }

  Ort::Session session_;
  std::vector<Port> inputs_, outputs_;
  std::vector<const char*> input_names_, output_names_;
  std::vector<Ort::Value> input_values_, output_values_;
};

// What is added to attention scores, by distance: float32 [heads, 2 * reach], and the value for
// a distance (the query's position less the key's) lies at reach - 1 - distance.
class Bias {
 public:
  Bias(const std::string& file, int64_t heads) : heads_(heads) {
    std::ifstream stream(file, std::ios::binary | std::ios::ate);
    if (!stream) throw std::runtime_error(file + " cannot be read");
    values_.resize(static_cast<size_t>(stream.tellg()) / sizeof(float));
    stream.seekg(0).read(reinterpret_cast<char*>(values_.data()), values_.size() * sizeof(float));
    columns_ = static_cast<int64_t>(values_.size()) / heads;
  }

  // The values of a head at `distance`, distance - 1 and so on.
  void copy(int64_t head, int64_t distance, int64_t count, float* out) const {
    const float* row = values_.data() + head * columns_ + columns_ / 2 - 1 - distance;
    for (int64_t i = 0; i < count; ++i) out[i] = std::max(row[i], kMasked);
  }

  int64_t heads() const { return heads_; }

 private:
  int64_t heads_, columns_ = 0;
  std::vector<float> values_;
};

// An encoder and a decoder; one sequence at a time.
class EncoderDecoder {
 public:
  // Args: the bundle's folder, and a chip of --soc, such as sm8650.
  EncoderDecoder(Ort::Env& env, const Ort::SessionOptions& options, const std::string& folder,
                 const std::string& chip)
      : encoder_(env, folder + "/encoder." + chip + ".onnx", options),
        decoder_(env, folder + "/decoder." + chip + ".onnx", options),
        encoder_bias_(folder + "/encoder.bias.bin", encoder_.input("self.bias").shape[1]),
        decoder_bias_(folder + "/decoder.bias.bin", decoder_.input("self.bias").shape[1]),
        source_(encoder_.input("input_ids").shape[1]),
        past_(decoder_.input("self.bias").shape[3] - 1) {
    if (decoder_.output("next_token").shape[1] != 1)
      throw std::runtime_error("this example makes one step per run: export without --unroll");
  }

  // Greedy tokens after `start`, up to `end`, at most `limit`.
  std::vector<int32_t> generate(const std::vector<int32_t>& source, int32_t pad, int32_t start,
                                int32_t end, int64_t limit) {
    encode(source, pad);
    std::vector<int32_t> tokens;
    int32_t token = start;
    // the last position needs no slot: nothing reads it
    for (int64_t at = 0; at <= std::min(limit - 1, past_); ++at) {
      token = step(token, at);
      if (token == end) break;
      tokens.push_back(token);
    }
    return tokens;
  }

 private:
  void encode(const std::vector<int32_t>& source, int32_t pad) {
    const auto length = static_cast<int64_t>(source.size());
    if (length < 1 || length > source_) throw std::runtime_error("the input is too long, or empty");
    int32_t* ids = encoder_.input("input_ids").as<int32_t>();
    std::fill(std::copy(source.begin(), source.end(), ids), ids + source_, pad);
    Port& bias = encoder_.input("self.bias");
    float* row = bias.as<float>();
    for (int64_t head = 0; head < bias.shape[1]; ++head)
      for (int64_t query = 0; query < bias.shape[2]; ++query, row += source_) {
        encoder_bias_.copy(head, query, source_, row);
        std::fill(row + length, row + source_, kMasked);
      }
    encoder_.run();
    for (Port& port : encoder_.outputs())  // into memory that stays bound
      std::copy(port.data.begin(), port.data.end(), decoder_.input(port.name).data.begin());
    float* cross = decoder_.input("cross.bias").as<float>();
    std::fill(cross, cross + length, 0.0f);
    std::fill(cross + length, cross + source_, kMasked);
  }

  // Feeds a token whose position is `at`, and keeps its keys and values.
  int32_t step(int32_t token, int64_t at) {
    *decoder_.input("input_ids").as<int32_t>() = token;
    if (Port* positions = decoder_.find_input("positions"))
      *positions->as<int32_t>() = static_cast<int32_t>(at);
    float* row = decoder_.input("self.bias").as<float>();
    for (int64_t head = 0; head < decoder_bias_.heads(); ++head, row += past_ + 1) {
      decoder_bias_.copy(head, at, past_, row);
      std::fill(row + std::min(at, past_), row + past_, kMasked);
      decoder_bias_.copy(head, 0, 1, row + past_);
    }
    decoder_.run();
    if (at < past_)
      for (Port& port : decoder_.outputs())
        if (port.name.rfind("new.", 0) == 0) keep(port, at);
    return *decoder_.output("next_token").as<int32_t>();
  }

  // Writes a row [1, 1, heads * depth] into slot `at` of its cache: keys are stored as
  // [1, heads, depth, slots], values as [1, heads, slots, depth].
  void keep(const Port& row, int64_t at) {
    Port& cache = decoder_.input("past." + row.name.substr(4));
    const bool keys = row.name.size() > 4 && row.name.compare(row.name.size() - 4, 4, ".key") == 0;
    const size_t size = size_of(row.type);
    const int64_t heads = cache.shape[1], depth = cache.shape[keys ? 2 : 3];
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t i = 0; i < depth; ++i) {
        const int64_t slot = keys ? (head * depth + i) * past_ + at
                                  : (head * past_ + at) * depth + i;
        std::memcpy(&cache.data[slot * size], &row.data[(head * depth + i) * size], size);
      }
  }

  Graph encoder_, decoder_;
  Bias encoder_bias_, decoder_bias_;
  int64_t source_, past_;
};

}  // namespace edgedec
