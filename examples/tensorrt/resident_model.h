// Runs engines that `edgedec export --device tensorrt|tensorrt-rtx --engines FOLDER` wrote, by
// TensorRT's and CUDA's C++ interfaces alone. What the ports mean is in docs/bundle.md; names,
// types and shapes are read from the JSON beside the engines, so it serves every --quant.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgedec {

using Json = nlohmann::json;
using Dims = nvinfer1::Dims;

inline void check(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(cudaGetErrorString(code));
}

inline void demand(bool done, const std::string& what) {
  if (!done) throw std::runtime_error("TensorRT cannot " + what);
}

inline std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error(path + " cannot be read");
  return {std::istreambuf_iterator<char>(stream), {}};
}

class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kWARNING) std::fprintf(stderr, "%s\n", text);
  }
};

// Memory of the GPU that grows when it must, zeroed: what a cache does not hold yet is masked, and
// must be finite all the same.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  ~Memory() { cudaFree(address_); }

  void* reserve(size_t bytes) {
    if (bytes > size_) {
      cudaFree(address_);
      address_ = nullptr;
      check(cudaMalloc(&address_, bytes));
      check(cudaMemset(address_, 0, bytes));
      check(cudaDeviceSynchronize());  // no other stream waits for it
      size_ = bytes;
    }
    return address_;
  }

 private:
  void* address_ = nullptr;
  size_t size_ = 0;
};

using Memories = std::map<std::string, Memory>;  // by the name of an input or output

// An engine with the facts beside it, and a context for one of its ranges of shapes.
class Engine {
 public:
  Engine(nvinfer1::IRuntime& runtime, const std::string& folder, const Json& files)
      : facts_(Json::parse(read_file(folder + "/" + files.at("facts").get<std::string>()))) {
    const std::string path = folder + "/" + files.at("engine").get<std::string>();
    const std::string data = read_file(path);
    demand(data.size() == facts_.at("size").get<size_t>(), "use " + path + ": it is damaged");
    engine_.reset(runtime.deserializeCudaEngine(data.data(), data.size()));
    demand(engine_ != nullptr, "load " + path + ": it was made by TensorRT " +
                                   facts_.at("runtime").get<std::string>());
    context_.reset(engine_->createExecutionContext(
        nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    demand(context_ != nullptr, "make a context of " + path);
  }

  bool has_input(const std::string& name) const { return facts_.at("inputs").contains(name); }

  // Gives every input and output its shape and memory. One sequence, `source` tokens of the encoder,
  // `fresh` new tokens, of which the last is scored.
  void prepare(int64_t source, int64_t fresh, Memories& memories, cudaStream_t stream) {
    std::map<std::string, Dims> shapes;
    for (const auto& [name, port] : facts_.at("inputs").items())
      shapes[name] = shape_of(name, port.at("shape"), source, fresh);
    demand(context_->setOptimizationProfileAsync(profile_of(shapes), stream), "choose a profile");
    for (const auto& [name, shape] : shapes) {
      demand(context_->setInputShape(name.c_str(), shape), "take this length of " + name);
      give(name, memories[name].reserve(bytes_of(name, "inputs", shape)));
    }
    const char* missing = nullptr;
    demand(context_->inferShapes(1, &missing) == 0, "infer shapes");
    for (const auto& [name, port] : facts_.at("outputs").items()) {
      // `present` is the memory of `past`: caches are written in place
      const Json& alias = port.at("alias");
      const std::string place = alias.is_null() ? name : alias.get<std::string>();
      const Dims shape = context_->getTensorShape(name.c_str());
      give(name, memories[place].reserve(bytes_of(name, "outputs", shape)));
    }
    const size_t size = std::max<size_t>(context_->updateDeviceMemorySizeForShapes(), 1);
    context_->setDeviceMemoryV2(activations_.reserve(size), static_cast<int64_t>(size));
  }

  void run(cudaStream_t stream) { demand(context_->enqueueV3(stream), "run an engine"); }

 private:
  static Dims shape_of(const std::string& name, const Json& declared, int64_t source,
                       int64_t fresh) {
    Dims shape{};
    shape.nbDims = static_cast<int32_t>(declared.size());
    for (int32_t axis = 0; axis < shape.nbDims; ++axis) {
      int64_t length = declared.at(axis);
      if (length < 0) {
        if (axis == 0 || name == "logit_positions") length = 1;
        else length = name.rfind("cross.", 0) == 0 ? source : fresh;
      }
      shape.d[axis] = length;
    }
    return shape;
  }

  // The first of the engine's profiles that has these shapes.
  int32_t profile_of(const std::map<std::string, Dims>& shapes) const {
    int32_t index = 0;
    for (const Json& profile : facts_.at("profiles")) {
      const bool fits = std::all_of(shapes.begin(), shapes.end(), [&](const auto& entry) {
        const Json& range = profile.at(entry.first);
        for (int32_t axis = 0; axis < entry.second.nbDims; ++axis) {
          const int64_t length = entry.second.d[axis];
          if (length < range.at(0).at(axis).template get<int64_t>() ||
              length > range.at(2).at(axis).template get<int64_t>())
            return false;
        }
        return true;
      });
      if (fits) return index;
      ++index;
    }
    throw std::runtime_error("this input is longer than the engines were made for");
  }

  size_t bytes_of(const std::string& name, const char* side, const Dims& shape) const {
    const std::string type = facts_.at(side).at(name).at("type");
    size_t bytes = type == "int64" ? 8 : type == "float16" ? 2 : 4;
    for (int32_t axis = 0; axis < shape.nbDims; ++axis) bytes *= shape.d[axis];
    return bytes;
  }

  void give(const std::string& name, void* address) {
    demand(context_->setTensorAddress(name.c_str(), address), "take memory for " + name);
  }

  Json facts_;
  Memory activations_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

// A model whose decoder is one engine; one sequence at a time.
class Model {
 public:
  explicit Model(const std::string& folder)
      : index_(Json::parse(read_file(folder + "/engines.json"))),
        runtime_(nvinfer1::createInferRuntime(logger_)) {
    demand(runtime_ != nullptr, "start");
    const Json& stages = index_.at("stages");
    if (stages.size() != 1 || !index_.at("head").is_null())
      throw std::runtime_error("this example runs bundles that were exported without --stages");
    const auto open = [&](const std::string& component) {
      return std::make_unique<Engine>(*runtime_, folder, index_.at("engines").at(component));
    };
    if (!index_.at("encoder").is_null()) encoder_ = open(index_.at("encoder"));
    decoder_ = open(stages.at(0).at("component"));
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }

  Model(const Model&) = delete;

  ~Model() {
    forget();
    cudaStreamDestroy(stream_);
  }

  // Greedy tokens up to the end, at most `most`. An encoder reads `tokens`; a decoder without one
  // continues them.
  std::vector<int64_t> generate(const std::vector<int64_t>& tokens, int64_t most) {
    if (tokens.empty()) throw std::runtime_error("there is nothing to read");
    const Json& how = index_.at("generation");
    const std::vector<int64_t> ends = how.at("eos_token_ids");
    std::vector<int64_t> prompt = tokens;
    if (encoder_) {
      encode(tokens);
      prompt = {how.at("decoder_start_token_id").get<int64_t>()};
    }
    const auto source = static_cast<int64_t>(tokens.size());
    const auto length = static_cast<int64_t>(prompt.size());
    most = std::min(most, index_.at("limits").at("target").get<int64_t>() - length + 1);

    decoder_->prepare(source, length, memories_, stream_);
    upload("input_ids", prompt);
    upload("past_length", {0});
    upload("logit_positions", {length - 1});
    if (decoder_->has_input("positions")) upload("positions", counted(length));
    decoder_->run(stream_);

    std::vector<int64_t> found;
    for (bool first = true;; first = false) {
      const int64_t token = next_token();
      if (static_cast<int64_t>(found.size()) >= most ||
          std::find(ends.begin(), ends.end(), token) != ends.end())
        break;
      found.push_back(token);
      if (static_cast<int64_t>(found.size()) == most) break;
      if (first) begin_steps(source, length);
      step();
    }
    forget();
    return found;
  }

 private:
  void encode(const std::vector<int64_t>& tokens) {
    const auto length = static_cast<int64_t>(tokens.size());
    encoder_->prepare(length, length, memories_, stream_);
    upload("input_ids", tokens);
    upload("attention_mask", std::vector<int64_t>(tokens.size(), 1));
    encoder_->run(stream_);  // its outputs are the decoder's inputs: same names, same memory
    check(cudaStreamSynchronize(stream_));
  }

  // From here on a step reads one token, which is the choice of the step before.
  void begin_steps(int64_t source, int64_t length) {
    forget();  // of a text that ended in an error
    decoder_->prepare(source, 1, memories_, stream_);
    upload("past_length", {length});
    upload("logit_positions", {0});
    if (decoder_->has_input("positions")) upload("positions", {length});
    feed("input_ids", "next_token");
    steps_ = 0;
  }

  // The second step is recorded, and those after it are one launch each: addresses and shapes do
  // not change, positions are on the GPU.
  void step() {
    if (steps_++ == 1) {
      check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
      cudaGraph_t graph = nullptr;
      try {
        enqueue_step();
      } catch (...) {  // the stream must not go on recording
        cudaStreamEndCapture(stream_, &graph);
        throw;
      }
      check(cudaStreamEndCapture(stream_, &graph));
      const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
      cudaGraphDestroy(graph);
      check(made);
    }
    if (graph_ != nullptr) check(cudaGraphLaunch(graph_, stream_));
    else enqueue_step();
  }

  void enqueue_step() {
    decoder_->run(stream_);
    feed("input_ids", "next_token");
    feed("past_length", "next.past_length");
    if (decoder_->has_input("positions")) feed("positions", "next.positions");
  }

  // Copies the one number of an output into an input.
  void feed(const char* input, const char* output) {
    check(cudaMemcpyAsync(memories_[input].reserve(0), memories_[output].reserve(0),
                          sizeof(int64_t), cudaMemcpyDeviceToDevice, stream_));
  }

  void upload(const char* input, const std::vector<int64_t>& values) {
    check(cudaMemcpyAsync(memories_[input].reserve(0), values.data(),
                          values.size() * sizeof(int64_t), cudaMemcpyHostToDevice, stream_));
    check(cudaStreamSynchronize(stream_));  // `values` may end here
  }

  int64_t next_token() {
    int64_t token = 0;
    check(cudaMemcpyAsync(&token, memories_["next_token"].reserve(0), sizeof(token),
                          cudaMemcpyDeviceToHost, stream_));
    check(cudaStreamSynchronize(stream_));
    return token;
  }

  static std::vector<int64_t> counted(int64_t length) {
    std::vector<int64_t> positions(static_cast<size_t>(length));
    for (int64_t at = 0; at < length; ++at) positions[static_cast<size_t>(at)] = at;
    return positions;
  }

  void forget() {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
  }

  Logger logger_;
  Json index_;
  Memories memories_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;  // outlives its engines
  std::unique_ptr<Engine> encoder_, decoder_;
  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
  int64_t steps_ = 0;
};

}  // namespace edgedec
