// Runs a folder of engines on token ids, and prints the ids that follow.
//
//     edgedec-gpu FOLDER MOST ID [ID ...]
#include <cstdio>
#include <cstdlib>

#include "resident_model.h"

int main(int count, char** words) try {
  if (count < 4) {
    std::fprintf(stderr, "edgedec-gpu FOLDER MOST ID [ID ...]\n");
    return 2;
  }
  edgedec::Model model(words[1]);
  std::vector<int64_t> tokens;
  for (int i = 3; i < count; ++i) tokens.push_back(std::atoll(words[i]));
  for (int64_t token : model.generate(tokens, std::atoll(words[2])))
    std::printf("%lld ", static_cast<long long>(token));
  std::printf("\n");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
