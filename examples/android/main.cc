// On a phone, by `adb shell`: run a bundle's contexts on token ids, and print the ids that follow.
//
//     edgedec-npu FOLDER CHIP PAD START END ID [ID ...]
#include <cstdio>
#include <cstdlib>

#include "static_model.h"

int main(int count, char** words) try {
  if (count < 7) {
    std::fprintf(stderr, "edgedec-npu FOLDER CHIP PAD START END ID [ID ...]\n");
    return 2;
  }
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "edgedec");
  env.RegisterExecutionProviderLibrary("QNNExecutionProvider", "libonnxruntime_providers_qnn.so");
  std::vector<Ort::ConstEpDevice> devices;
  for (const auto& device : env.GetEpDevices())
    if (std::string(device.EpName()) == "QNNExecutionProvider" &&
        device.Device().Type() == OrtHardwareDeviceType_NPU)
      devices.push_back(device);
  if (devices.empty()) throw std::runtime_error("QNN finds no NPU here");
  Ort::SessionOptions options;
  options.AddConfigEntry("session.disable_cpu_ep_fallback", "1");
  const std::unordered_map<std::string, std::string> settings{
      {"backend_type", "htp"}, {"htp_performance_mode", "burst"}};
  options.AppendExecutionProvider_V2(env, devices, settings);

  edgedec::EncoderDecoder model(env, options, words[1], words[2]);
  std::vector<int32_t> source;
  for (int i = 6; i < count; ++i) source.push_back(std::atoi(words[i]));
  const auto found = model.generate(source, std::atoi(words[3]), std::atoi(words[4]),
                                    std::atoi(words[5]), 1 << 20);
  for (int32_t token : found) std::printf("%d ", token);
  std::printf("\n");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
